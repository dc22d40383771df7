"""A small drawn dataset on disk, and configurations that read it."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from drawn import TRACKS, Drawn, MakeConfig
from synthetic import write_dataset

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
