"""`marlin demo`: pinned sample videos through every stage, and a report of what came out."""

import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.assets import pull_models, pull_samples
from pipeline.config.load import load_config
from pipeline.layout import tracking_uri
from pipeline.local import make_report, run_stages

_HEADLINES = {
    "track-probe": {"balanced_accuracy": "balanced accuracy", "chance_balanced_accuracy": "chance"},
    "reconstruction": {"mse": "mse", "mean_mse": "mse of guessing the visible mean"},
}


def run_demo(output: Path, overrides: Sequence[str] = ()) -> Path:
    """Run the demo in ``output``; what an earlier call finished there is not done again.

    Args:
        output: folder for dataset, run, tracking database and report.
        overrides: ``section.key=value`` strings on top of the demo preset.

    Returns:
        Path of the report.
    """
    start = time.perf_counter()
    pull_models()
    samples = pull_samples()
    folder = next(iter(samples.values())).parent
    output = output.absolute()
    cfg = load_config("demo", [f"storage.root={_quoted(output)}", f"corpus.path={_quoted(folder)}", *overrides])
    results = run_stages(cfg)
    report = output / "report.html"
    make_report(cfg, report)
    _tell(results, report, tracking_uri(cfg), time.perf_counter() - start)
    return report


def _quoted(path: Path) -> str:
    """A path as a YAML value, whatever characters it has."""
    return json.dumps(str(path))


def _tell(results: dict[str, dict[str, Any]], report: Path, uri: str, seconds: float) -> None:
    lines = [f"Done in {seconds:.0f} s.", ""]
    for task, names in _HEADLINES.items():
        if task in results:
            metrics = results[task]["metrics"]
            lines.append(f"{task}: " + ", ".join(f"{text} {metrics[name]:.3g}" for name, text in names.items()))
    lines += [
        "",
        f"Report:  {report}",
        f"MLflow:  {Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {shlex.quote(uri)}",
        "         then open http://127.0.0.1:5000",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
