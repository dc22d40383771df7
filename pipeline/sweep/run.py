"""Runs the members of a sweep on this machine, some at once; those that are done are passed over."""

import logging
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pipeline.config.load import dump_config
from pipeline.errors import MarlinError, StoppedEarly
from pipeline.sweep.plan import Member

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """How a member ended: its exit status, and the last line it said."""

    member: Member
    status: int
    said: str


def run_members(members: Sequence[Member], folder: Path, workers: int, *, progress: bool = True) -> list[Ended]:
    """Run `marlin run` for each member; what it says goes to `<folder>/<run>.log`.

    A stop signal is passed on: members save and end.

    Args:
        members: the runs.
        folder: for configurations and logs.
        workers: how many at once.
        progress: show a bar.

    Raises:
        StoppedEarly: a stop signal came; the same call continues.
        MarlinError: the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MarlinError(f"{folder}: {error.strerror}: choose another folder with -o") from None
    crew = _Crew(folder)
    with ThreadPoolExecutor(workers) as pool:
        try:
            found = pool.map(crew.run, members)
            return list(tqdm(found, desc="sweep", unit="run", total=len(members), disable=not progress))
        except BaseException:
            crew.stop()
            pool.shutdown(cancel_futures=True)
            raise


class _Crew:
    """The processes of a sweep."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, member: Member) -> Ended:
        name = member.cfg.run.name
        config, log = self._folder / f"{name}.yaml", self._folder / f"{name}.log"
        config.write_text(dump_config(member.cfg), "utf-8")
        command = [sys.executable, "-m", "pipeline.cli", "run", "-c", str(config)]
        with log.open("ab") as said:
            with self._lock:
                if self._stopped:
                    raise StoppedEarly("stopped before it began")
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
                self._running.add(process)
            status = process.wait()
            with self._lock:
                self._running.discard(process)
        if status:
            _log.warning("%s ended with %d: %s", name, status, log)
        lines = log.read_text("utf-8", errors="replace").strip().splitlines()
        return Ended(member, status, lines[-1] if lines else "")

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()
