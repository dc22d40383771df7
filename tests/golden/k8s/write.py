"""Writes the golden manifests anew: `PYTHONPATH=.:tests python tests/golden/k8s/write.py`; read the difference."""

from test_k8s_render import CONFIGURATIONS, GOLDEN, manifests

for name, options in CONFIGURATIONS.items():
    (GOLDEN / f"{name}.yaml").write_text(manifests(*options))
