"""Runs that no longer move: every rank's stack, and the name of the one behind."""

import gc
import socket
import time
from pathlib import Path

import pytest
import torch
from drawn import Drawn
from drawn_runs import small_config
from ranks import finish, places, start_ranks
from training import write_config

from pipeline.layout import run_store
from train.collection import PeriodicCollection
from train.status import read_status
from train.watchdog import Place, Watchdog, verdict
from train.world import World

# The third batch of the last rank never comes to its networks.
SLEEPER = """
import os, sys, time
from train.world import choose_accelerator
choose_accelerator()
from train.step import Masker
mask, calls = Masker.__call__, []
def sleep_at_the_third(self, batch):
    calls.append(batch)
    if len(calls) == 3 and os.environ["RANK"] == "1":
        time.sleep(1000)
    return mask(self, batch)
Masker.__call__ = sleep_at_the_third
from pipeline.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_rank_that_sleeps_is_named_and_all_stacks_are_shown(tmp_path: Path, drawn: Drawn) -> None:
    cfg = small_config(
        tmp_path / "storage",
        f"data.dataset='{drawn.store.url}'",
        f"launch.scratch='{tmp_path / 'scratch'}'",
        *("launch.threads=1", "train.steps=50", "train.val_clips=0", "train.hang_timeout=15"),
        *("train.global_batch=4", "train.micro_batch=2", "data.streams=4"),
    )
    path = write_config(cfg, tmp_path / "sleep.yaml")
    ended = finish(start_ranks(["-c", SLEEPER, "train", "-c", path], places(2)))
    assert [code for code, _ in ended] == [1, 1], ended
    for rank, (_, err) in enumerate(ended):
        assert f"rank {rank} on {socket.gethostname()}: no step was finished for 15 s" in err
        assert "most recent call first" in err
        assert "in _update" in err
    assert "in sleep_at_the_third" in ended[1][1]
    status = read_status(run_store(cfg))
    assert status is not None
    assert (status.state, status.step, status.usage) == ("failed", 2, False)
    assert status.reason.startswith(
        f"no step was finished for 15 s (train.hang_timeout): the others wait for rank 1 ({socket.gethostname()}) "
        "in step 3 at loop.py:"
    )


# The last rank never builds its networks.
LATE = """
import os, sys, time
from train.world import choose_accelerator
choose_accelerator()
import train.loop
build = train.loop._build_engines
def sleep_first(*arguments):
    if os.environ["RANK"] == "1":
        time.sleep(1000)
    return build(*arguments)
train.loop._build_engines = sleep_first
from pipeline.cli import main
sys.exit(main(sys.argv[1:]))
"""

# No rank comes back from connecting.
UNCONNECTED = """
import sys, time
from train.world import choose_accelerator
choose_accelerator()
import train.join
train.join._AFTER_EXCHANGE = 4
train.join._connect = lambda *arguments: time.sleep(1000)
from pipeline.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            LATE,
            "no step was finished for 15 s (train.hang_timeout): the others wait for rank 1 ({}) in the start at ",
        ),
        (UNCONNECTED, "the ranks did not connect within 10 s (from train.start_timeout): all ranks are in the start"),
    ],
    ids=["building", "connecting"],
)
def test_a_start_that_hangs_is_told_like_a_step(tmp_path: Path, drawn: Drawn, script: str, reason: str) -> None:
    cfg = small_config(
        tmp_path / "storage",
        f"data.dataset='{drawn.store.url}'",
        f"launch.scratch='{tmp_path / 'scratch'}'",
        *("launch.threads=1", "train.val_clips=0", "train.hang_timeout=15", "train.start_timeout=3"),
        *("train.global_batch=4", "train.micro_batch=2", "data.streams=4"),
    )
    path = write_config(cfg, tmp_path / "late.yaml")
    ended = finish(start_ranks(["-c", script, "train", "-c", path], places(2)))
    assert [code for code, _ in ended] == [1, 1], ended
    assert all("most recent call first" in err for _, err in ended)
    status = read_status(run_store(cfg))
    assert status is not None
    assert (status.state, status.step) == ("failed", 0)
    assert status.reason.startswith(reason.format(socket.gethostname()))


def found(*states: tuple[int, bool]) -> dict[int, Place]:
    return {rank: Place(f"host{rank}", done, f"step.py:{rank} (f)", waits) for rank, (done, waits) in enumerate(states)}


@pytest.mark.parametrize(
    ("places", "size", "words"),
    [
        (found((5, True), (4, True)), 2, "wait for rank 1 (host1) in step 5 at step.py:1 (f)"),
        (found((5, True), (5, False), (5, True)), 3, "wait for rank 1 (host1) in step 6"),
        (found((5, True), (5, True)), 2, "all ranks are in step 6, and none is behind: at step.py:0 (f)"),
        (found((5, False), (5, False)), 2, "none is behind"),
        (found((5, True)), 3, "ranks 1, 2 of 3 did not answer at all"),
        (found((5, False)), 1, "too long: at step.py:0 (f)"),
        (
            found((-1, True), (-1, False)),
            2,
            "others wait for rank 1 (host1) in the start at step.py:1 (f)",
        ),
    ],
)
def test_the_verdict(places: dict[int, Place], size: int, words: str) -> None:
    assert words in verdict(places, size, "too long")


def test_a_run_that_moves_is_left_alone() -> None:
    told: list[str] = []
    with Watchdog(World(0, 1, 0, torch.device("cpu")), 3, told.append) as watchdog:  # ends this process if it errs
        for done in range(8):
            watchdog.beat(done)
            time.sleep(0.5)
    assert not told


def test_collection_runs_at_fixed_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with PeriodicCollection() as collection:
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
        collected: list[int] = []
        monkeypatch.setattr(gc, "collect", lambda: collected.append(1))
        for done in range(1, 201):
            collection.step(done)
        assert len(collected) == 2
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
