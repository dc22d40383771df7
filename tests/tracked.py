"""Runs that are told to MLflow, and what MLflow then has of them."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.layout import run_store, tracking_uri
from pipeline.tracking import Tracker, open_tracker

IMAGE = np.zeros((4, 6, 3), np.uint8)


def config(root: Path, *overrides: str) -> Config:
    return load_config("demo", [f"storage.root='{root}'", *overrides])


def client_of(cfg: Config):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri(cfg))


def opened(cfg: Config, tmp_path: Path, *, owner: bool = True) -> Tracker:
    """A tracker as a fresh process opens it."""
    return open_tracker(cfg, run_store(cfg), tmp_path / f"spool-{time.monotonic_ns()}", owner=owner)


def log(cfg: Config, tmp_path: Path, steps: range, value: float) -> str:
    """A process that tells a metric and an image of some steps; the MLflow run it told them to."""
    with opened(cfg, tmp_path) as tracker:
        for step in steps:
            tracker.log_metrics({"train/mse": value + step}, step)
            tracker.log_image("reconstruction", IMAGE, step)
    return str(tracker.run_id)


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def waiting(cfg: Config) -> list[str]:
    return [item.key for item in run_store(cfg).list("tracking/")]


def points(cfg: Config, name: str = "train/mse") -> list[tuple[int, float]]:
    """Everything that MLflow has of a metric, doubles too."""
    history = client_of(cfg).get_metric_history(json.loads(run_store(cfg).read("mlflow.json"))["run_id"], name)
    return sorted((metric.step, metric.value) for metric in history)
