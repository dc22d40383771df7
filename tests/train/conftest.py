"""A small drawn dataset on disk, and configurations that read it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import TRACKS, Drawn, MakeConfig
from drawn_runs import small_config
from synthetic import write_dataset
from training import MakeTraining

from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.storage import open_store


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Five sources in six units, 19 training samples of 32×32 pixels with a 4×4 region grid."""
    store = open_store(str(tmp_path_factory.mktemp("drawn")))
    write_dataset(store, TRACKS, size=32, patch=8, label_maps=False)
    return Drawn(load_dataset(store), store)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of arithmetic: fastest for tiny networks, and the same sums on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_config() -> MakeConfig:
    """Configurations for the drawn dataset: `make_config(data={...}, train={...})`."""

    def make(data: Mapping[str, Any] | None = None, train: Mapping[str, Any] | None = None) -> Config:
        return Config.model_validate(
            {
                "preprocess": {"size": 32, "patch": 8},
                "data": {"threads": 1, **(data or {})},
                "train": {"steps": 1, "global_batch": 8, "micro_batch": 8, **(train or {})},
            }
        )

    return make


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all runs: creating its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def training(tmp_path: Path, drawn: Drawn, tracking_uri: str) -> MakeTraining:
    """Configurations of small runs in this process; each name has its own folder."""

    def make(name: str, *overrides: str) -> Config:
        small = [
            f"run.name={name}",
            f"data.dataset='{drawn.store.url}'",
            f"tracking.uri={tracking_uri}",
            f"launch.scratch='{tmp_path / 'scratch'}'",
            "launch.threads=1",
            "train.launcher=none",
            "train.steps=6",
            "train.checkpoint_every=2",
            "train.global_batch=4",
            "train.micro_batch=4",
            "train.val_clips=0",
            "train.keep_last=10",
            # Pinned, whatever suits the demo.
            *("train.base_lr=0.032", "train.min_lr=0.0032", "train.warmup=0.1"),
            *("data.streams=4", "critic.lipschitz=clip"),
        ]
        return small_config(tmp_path / "storage", *small, *overrides)

    return make
