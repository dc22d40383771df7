"""Runs of `marlin preprocess` in processes of their own, to be killed, and what lies in storage afterwards."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import yaml
from odd_videos import encode

from preprocess.decode.video import read_frames

ROOT = Path(__file__).parents[1]


def make_corpus(folder: Path, video: Path, clips: int, frames: int) -> Path:
    """Several clips of one real face, each from another moment, at half size."""
    folder.mkdir(parents=True)
    pictures = np.stack([frame.rgb[::2, ::2] for frame in read_frames(video)])
    for number in range(clips):
        start = number * (len(pictures) - frames) // clips
        encode(folder / f"clip {number}.mp4", pictures[start : start + frames])
    (folder / "bad.mp4").write_bytes(b"")
    return folder


def write_config(path: Path, corpus: Path, root: Path, **preprocess: object) -> Path:
    """A configuration file for the command."""
    section = {"clip_frames": 16, "min_frames": 8, "holdout": 0.25, "unit_sources": 1, "workers": 2, **preprocess}
    path.write_text(
        yaml.safe_dump(
            {
                "corpus": {"path": str(corpus), "name": "faces"},
                "storage": {"root": str(root)},
                "preprocess": section,
                "data": {"frames": 4, "stride": 1},
                "train": {"steps": 1},
            }
        )
    )
    return path


@dataclass(frozen=True)
class Run:
    """A running command, a session leader; `temp` is its folder of temporary files."""

    process: "subprocess.Popen[str]"

    def descendants(self) -> list[psutil.Process]:
        """All processes below it."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        """Ray processes that work on units."""
        return [process for process in self.descendants() if title(process).startswith("ray::_Worker")]

    def signal_group(self, number: int) -> None:
        """Sends a signal to its whole process group, as a terminal does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextlib.contextmanager
def running(config: Path, temp: Path) -> Iterator[Run]:
    """The command on a configuration; whatever is left of it is killed at the end."""
    temp.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "preprocess", "-c", str(config)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temp)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    run = Run(process)
    try:
        yield run
    finally:
        left = run.descendants()
        run.signal_group(signal.SIGKILL)
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.communicate()


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether it became true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def content(dataset: Path) -> dict[str, str]:
    """The sha256 of every file of a dataset in local storage, hidden ones but locks included."""
    return {
        path.relative_to(dataset).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.rglob("*"))
        if path.is_file() and not path.name.endswith("lock")
    }
