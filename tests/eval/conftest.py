"""Runs to evaluate."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from drawn_runs import MakeRun, publish, small_config
from synthetic import DrawnTrack, write_dataset

from pipeline.config.schema import Config
from pipeline.layout import dataset_store

TRACKS = (DrawnTrack("anna.mp4"), DrawnTrack("berta.mp4"))


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: creating its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def make_run(tmp_path: Path, tracking_uri: str) -> MakeRun:
    """Build a run: its dataset, and checkpoints of random weights at the given steps."""

    def build(*overrides: str, steps: Sequence[int] = (20,), tracks: Sequence[DrawnTrack] = TRACKS) -> Config:
        cfg = small_config(tmp_path / "storage", f"tracking.uri={tracking_uri}", *overrides)
        write_dataset(dataset_store(cfg), tracks, size=cfg.preprocess.size, patch=cfg.preprocess.patch)
        for step in steps:
            publish(cfg, step, tmp_path / f"{cfg.run.name}-{step}")
        return cfg

    return build
