"""`marlin demo`: pinned sample videos through every stage, labelled tasks on drawn ones, and a report of all."""

import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.assets import pull_models, pull_samples
from pipeline.config.load import load_config
from pipeline.config.schema import Config, CorpusConfig, PreprocessConfig
from pipeline.layout import dataset_store, tracking_uri
from pipeline.local import make_report, run_stages
from pipeline.tracking.client import NO_TRACKING

_LABELS = ("attributes", "emotion", "sentiment2", "deepfake")
_HEADLINES = {
    "track-probe": {"balanced_accuracy": "balanced accuracy", "chance_balanced_accuracy": "chance"},
    "reconstruction": {"mse": "mse", "mean_mse": "mse of guessing the visible mean"},
} | {f"{asked}-linear": {"auc": "AUC", "accuracy": "accuracy", "majority_accuracy": "majority"} for asked in _LABELS}
_DRAWN = {"attributes": ("celebv-hq", 20), "emotion": ("mosei", 32), "deepfake": ("ffpp", 6)}
"""Kind and number of drawn videos for each labelled dataset; of ffpp these are originals, each forged four times."""
_DRAWN_FRAMES, _SMALLEST = 32, 64
_TASKS = tuple(_HEADLINES)
# A dozen videos are one step an epoch: the published rate would need thousands of epochs.
_LABELLED = (f"eval.tasks=[{','.join(_TASKS)}]", "eval.probe.lr=0.01", "eval.probe.epochs=200")


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
    here = [f"storage.root={_quoted(output)}", *overrides]
    drawn = {name: _drawn_dataset(load_config("demo", here), output / "drawn", *_DRAWN[name]) for name in _DRAWN}
    drawn["sentiment"] = drawn["emotion"]
    places = [f"eval.datasets.{name}={_quoted(url)}" for name, url in drawn.items()]
    cfg = load_config("demo", [f"corpus.path={_quoted(folder)}", *_LABELLED, *places, *here])
    results = run_stages(cfg)
    report = output / "report.html"
    make_report(cfg, report)
    _tell(results, report, tracking_uri(cfg), time.perf_counter() - start)
    return report


def _drawn_dataset(cfg: Config, folder: Path, kind: str, videos: int) -> str:
    """URL of a dataset of drawn faces with labels, which is made where it is missing."""
    from preprocess.drawing.corpus import draw_corpus
    from preprocess.drawing.layouts import Request
    from preprocess.stage import run_preprocess

    corpus, size = folder / kind, cfg.preprocess.size
    settings: dict[str, Any] = {"detector": "none", "parser": "given", "clip_frames": 32, "min_frames": 32}
    settings["near_duplicates"] = kind != "ffpp"  # forgeries move as their originals do
    machine = ("size", "patch", "workers", "ray_address", "object_store_mb")
    settings |= {name: getattr(cfg.preprocess, name) for name in machine}
    splits = "splits" if kind == "celebv-hq" else ""
    there = {"kind": kind, "path": str(corpus), "name": f"drawn-{kind}", "splits": splits, "compression": "c40"}
    sections = {"corpus": CorpusConfig.model_validate(there), "preprocess": PreprocessConfig.model_validate(settings)}
    drawn = cfg.model_copy(update=sections)
    if not corpus.exists():
        draw_corpus(kind, corpus, Request(videos, _DRAWN_FRAMES, 0), size=max(_SMALLEST, size + size % 2))
    run_preprocess(drawn)
    return dataset_store(drawn).url


def _quoted(value: Path | str) -> str:
    """A path as a YAML value, whatever characters it has."""
    return json.dumps(str(value))


def _tell(results: dict[str, dict[str, Any]], report: Path, uri: str, seconds: float) -> None:
    lines = [f"Done in {seconds:.0f} s.", ""]
    for task, names in _HEADLINES.items():
        if task in results:
            metrics = results[task]["metrics"]
            lines.append(
                f"{task}: "
                + ", ".join(f"{text} {metrics[name]:.3g}" for name, text in names.items() if name in metrics)
            )
    lines += [
        "",
        f"Report:  {report}",
    ]
    if uri != NO_TRACKING:
        lines += [
            f"MLflow:  {Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {shlex.quote(uri)}",
            "         then open http://127.0.0.1:5000",
        ]
    sys.stdout.write("\n".join(lines) + "\n")
