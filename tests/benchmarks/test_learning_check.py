"""The short learning check: it passes as the method is, and not when the method is broken on purpose."""

from pathlib import Path

import pytest

from benchmarks.learning.broken import BREAKS
from benchmarks.learning.check import calibrate
from benchmarks.learning.corpora import make_datasets
from benchmarks.learning.protocol import load_protocol

pytestmark = [pytest.mark.learning, pytest.mark.timeout(1800)]


def test_it_learns_and_what_is_broken_is_noticed(tmp_path: Path) -> None:
    make_datasets(load_protocol("check"), tmp_path)
    rows = calibrate("check", tmp_path, [0], at_once=2)
    print(*rows, sep="\n")
    assert {row["broken"]: row["enough"] for row in rows} == {"": True, **dict.fromkeys(BREAKS, False)}
