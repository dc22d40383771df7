"""All stages of a configuration on this machine; each one returns at once where its work is already done."""

from pathlib import Path
from typing import Any

from pipeline.config.schema import Config


def run_stages(cfg: Config) -> dict[str, dict[str, Any]]:
    """Preprocess, train and evaluate; returns the results of the evaluation by task."""
    from preprocess.stage import run_preprocess

    run_preprocess(cfg)
    from eval.job import check_tasks, run_eval

    check_tasks(cfg)
    from train.launch import run_training

    run_training(cfg)
    return run_eval(cfg)


def make_report(cfg: Config, out: Path) -> None:
    """The HTML page of a finished run."""
    from eval.report.page import write_report

    write_report([cfg], out)
