"""The short learning check: it passes as the method is, and not when the method is broken on purpose."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.learning.broken import BREAKS
from benchmarks.learning.check import Learned, learn
from benchmarks.learning.corpora import make_datasets
from benchmarks.learning.protocol import Job, load_protocol

pytestmark = [pytest.mark.learning, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learning")
    make_datasets(load_protocol("check"), folder, workers=2)
    return folder


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def learned(root: Path, how: str) -> Learned:
    found = learn(load_protocol("check"), Job("report", "marlin", 0), root, how=how, threads=2)
    print(f"{how or 'whole'}: gain {found.gain:+.4f}, margin {found.margin:+.2f} dB")
    return found


def test_it_learns(root: Path) -> None:
    assert learned(root, "").enough


@pytest.mark.parametrize("how", BREAKS)
def test_what_is_broken_is_noticed(root: Path, how: str) -> None:
    assert not learned(root, how).enough
