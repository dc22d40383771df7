"""Writes the golden scripts anew: `PYTHONPATH=.:tests python tests/golden/slurm/write.py`; read the difference."""

from test_slurm_scripts import CONFIGURATIONS, GOLDEN, scripts

for name, options in CONFIGURATIONS.items():
    (GOLDEN / name).mkdir(exist_ok=True)
    for stage, text in scripts(*options).items():
        (GOLDEN / name / f"{stage}.sbatch").write_text(text)
