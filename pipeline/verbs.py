"""What each verb of the command line does. Stages are imported only when their verb runs."""

import sys
from argparse import Namespace
from pathlib import Path

from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.layout import run_store


def demo(args: Namespace) -> None:
    """The whole pipeline on sample videos, ending with a report."""
    from pipeline.demo import run_demo

    run_demo(Path(args.output), args.overrides)


def run(args: Namespace) -> None:
    """All stages of a configuration, then the report beside the run."""
    from pipeline.local import run_stages

    cfg = _config(args)
    run_stages(cfg)
    _say(f"run {cfg.run.name} is done: {run_store(cfg).url}")


def preprocess(args: Namespace) -> None:
    """Raw videos to shards."""
    from preprocess.stage import run_preprocess

    summary = run_preprocess(_config(args))
    _say(str(summary))


def train(args: Namespace) -> None:
    """Pretraining."""
    from train.launch import run_training

    cfg = _config(args)
    status = run_training(cfg)
    _say(f"trained {status.step} steps: {run_store(cfg).url}")


def evaluate(args: Namespace) -> None:
    """Evaluation of one published checkpoint."""
    import json

    from eval.job import run_eval

    results = run_eval(_config(args), checkpoint=args.checkpoint)
    _say(json.dumps({task: result["metrics"] for task, result in results.items()}, indent=1))


def report(args: Namespace) -> None:
    """One HTML page of one run, or of several side by side."""
    from eval.report.page import write_report

    configs = [load_config(source, args.overrides) for source in args.config]
    out = Path(args.output)
    write_report(configs, out)
    _say(f"report: {out.absolute()}")


def models_pull(args: Namespace) -> None:
    """Pinned model files into the user's cache."""
    from pipeline.assets import pull_models

    for name, path in pull_models().items():
        _say(f"{name}: {path}")


def samples_pull(args: Namespace) -> None:
    """Pinned sample videos into the user's cache."""
    from pipeline.assets import pull_samples

    for path in pull_samples().values():
        _say(str(path))


def doctor(args: Namespace) -> None:
    """What this machine has, what is missing, and the fix."""
    from pipeline.doctor import examine

    cfg = load_config(args.config, args.overrides) if args.config else None
    for finding in examine(cfg):
        _say(finding.line())


def dataset_verify(args: Namespace) -> None:
    """Every shard against its manifest, every sample against the schema."""
    from preprocess.inspect import verify

    _say(verify(_config(args)))


def dataset_stats(args: Namespace) -> None:
    """Counts of a dataset."""
    from preprocess.inspect import stats

    _say(stats(_config(args)))


def dataset_show(args: Namespace) -> None:
    """Sample frames with their region overlay as one PNG."""
    from preprocess.inspect import show

    _say(f"wrote {show(_config(args), Path(args.output), args.count)}")


def dataset_order(args: Namespace) -> None:
    """What a rank will read, as JSON lines."""
    from train.data.preview import order_lines

    for line in order_lines(_config(args), world=args.world, rank=args.rank, steps=args.steps):
        _say(line)


def _config(args: Namespace) -> Config:
    return load_config(args.config, args.overrides)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
