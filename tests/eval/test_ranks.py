"""Processes of a job: what they share, and how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from training import REPOSITORY, environment

from eval.ranks import Rank, run_ranks
from pipeline.errors import MarlinError
from pipeline.storage import Unavailable

_ASLEEP = """
import sys, time
from pathlib import Path
from eval.ranks import run_ranks

def sleep(rank, folder):
    (folder / f"rank-{rank.number}").touch()
    time.sleep(600)

if __name__ == "__main__":
    import signal
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    run_ranks(sleep, 2, Path(sys.argv[1]))
"""


def tell(rank: Rank, folder: Path) -> None:
    (folder / f"rank-{rank.number}").write_text(" ".join(rank.gather(f"{rank.number}/{rank.size}")))


def fail(rank: Rank, folder: Path) -> None:
    if rank.number == 1:
        raise ValueError("no such luck")
    time.sleep(600)


def die(rank: Rank, folder: Path) -> None:
    if rank.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


@pytest.mark.parametrize("size", [1, 3])
def test_ranks_hear_of_each_other(tmp_path: Path, size: int) -> None:
    run_ranks(tell, size, tmp_path)
    everyone = " ".join(f"{number}/{size}" for number in range(size))
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == [everyone] * size


@pytest.mark.parametrize(
    ("work", "words"), [(fail, "failed: ValueError: no such luck"), (die, "was killed: .*SIGKILL")]
)
def test_a_rank_that_ends_badly_is_named_and_ends_the_others(tmp_path: Path, work: object, words: str) -> None:
    with pytest.raises(MarlinError, match=f"rank 1 of 2 {words}"):
        run_ranks(work, 2, tmp_path)
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def lose(rank: Rank, folder: Path) -> None:
    raise Unavailable("s3://bucket is out of reach")


def test_storage_that_is_away_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"rank \d of 2 failed: .*s3://bucket is out of reach"):
        run_ranks(lose, 2, tmp_path)


def test_a_stopped_job_leaves_no_rank_behind(tmp_path: Path) -> None:
    script, folder = tmp_path / "job.py", tmp_path / "out"
    script.write_text(_ASLEEP)
    folder.mkdir()
    job = subprocess.Popen(
        [sys.executable, str(script), str(folder)], env=environment(PYTHONPATH=str(REPOSITORY)), cwd=REPOSITORY
    )
    while len(list(folder.iterdir())) < 2:
        assert job.poll() is None
        time.sleep(0.05)
    ranks = psutil.Process(job.pid).children(recursive=True)
    assert len(ranks) >= 2
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 75
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert not alive
