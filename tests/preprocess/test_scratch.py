"""Scratch folders of processes: kept while they live, gone after them."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from preprocess.cluster.scratch import sweep_scratch

_CHILD = """
import sys, tempfile
from preprocess.cluster.scratch import enter_scratch
print(enter_scratch(), flush=True)
tempfile.NamedTemporaryFile(delete=False).write(b"much")
print("written", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, for this process and its children."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def _start() -> tuple[subprocess.Popen[str], Path]:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout
    folder = Path(child.stdout.readline().strip())
    assert child.stdout.readline() == "written\n"
    return child, folder


def test_what_a_killed_process_left_is_removed_and_what_others_use_is_kept(temp: Path) -> None:
    (temp / "marlin-worker-of-nobody").mkdir()
    (temp / "somebody-else").mkdir()
    dead, left = _start()
    alive, used = _start()
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    assert len(list(left.iterdir())) == 1

    sweep_scratch()

    assert sorted(temp.iterdir()) == sorted([used, temp / "somebody-else"])
    assert len(list(used.iterdir())) == 1
    alive.communicate("")
    sweep_scratch()
    assert list(temp.iterdir()) == [temp / "somebody-else"]


def test_the_next_process_sweeps_as_it_starts(temp: Path) -> None:
    dead, left = _start()
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    alive, used = _start()
    assert list(temp.iterdir()) == [used]
    assert left != used
    alive.communicate("")


def test_processes_that_start_at_once_keep_their_folders(temp: Path) -> None:
    started = [_start() for _ in range(4)]
    try:
        assert all(folder.is_dir() for _, folder in started)
        assert len({folder for _, folder in started}) == 4
    finally:
        for child, _ in started:
            child.kill()
            child.wait()
