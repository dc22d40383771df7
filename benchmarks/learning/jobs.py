"""Runs the jobs of a protocol, some at once: each a training and a measurement in processes of their own."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.learning.protocol import Job, Protocol
from benchmarks.learning.results import read_result
from pipeline.config.load import dump_config
from pipeline.errors import MarlinError
from pipeline.text import plural

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where jobs work.

    Attributes:
        protocol: name or path, as it was given.
        root: datasets and runs.
        out: results.
        threads: of arithmetic, for each job.
    """

    protocol: str
    root: Path
    out: Path
    threads: int


def run_jobs(
    protocol: Protocol, jobs: Sequence[Job], place: Place, *, at_once: int = 1, minutes: float | None = None
) -> None:
    """Run the jobs that have no result yet; each result is written as soon as it is there.

    Args:
        protocol: what is run.
        jobs: in this order.
        place: where.
        at_once: so many at a time.
        minutes: after these no job is begun any more.

    Raises:
        UsageError: a result there is of another protocol.
        MarlinError: jobs failed; the results of the others are there.
    """
    todo = [job for job in jobs if read_result(place.out, job, protocol.digest(job)) is None]
    _log.info("%s, %d to do", plural(len(jobs), "job"), len(todo))
    logs = place.root / "logs"
    for folder in (logs, place.out):
        folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes if minutes else None

    def work(job: Job) -> str:
        if end is not None and time.monotonic() > end:
            return f"{job.name}: not begun, the time was over"
        start = time.monotonic()
        said = _run(protocol, job, place, logs)
        _log.info("%s %s after %.0f s", job.name, "failed" if said else "is done", time.monotonic() - start)
        return said

    with ThreadPoolExecutor(at_once) as pool:
        failed = [said for said in pool.map(work, todo) if said]
    if failed:
        raise MarlinError(f"{len(failed)} of {plural(len(todo), 'job')} have no result, the first: {failed[0]}")


def _run(protocol: Protocol, job: Job, place: Place, logs: Path) -> str:
    """Train and measure; what went wrong, or nothing."""
    log, measured = logs / f"{protocol.run_of(job)}.log", logs / f"{job.name}.measured.log"
    steps: dict[str, list[str]] = {}
    if job.trained:
        config = log.with_suffix(".yaml")
        config.write_text(dump_config(protocol.config_of(job, place.root, place.threads)), "utf-8")
        steps["training"] = ["pipeline.cli", "train", "-c", str(config)]
    where = "--root", str(place.root), "--out", str(place.out), "--threads", str(place.threads)
    setting = ["--setting", job.setting] if job.setting else ["--chosen", protocol.chosen] if protocol.chosen else []
    what = job.stage, job.variant, str(job.seed)
    steps["measuring"] = ["benchmarks.learning", "measure", "-p", place.protocol, *where, *setting, *what]
    for name, command in steps.items():
        said = log if name == "training" else measured
        status = _call(command, said, place.threads)
        if status:
            return f"{job.name}: {name} ended with {status}, see {said}"
    return ""


def _call(command: Sequence[str], log: Path, threads: int) -> int:
    environment: Mapping[str, str] = {**os.environ, "MARLIN_LOG": "json", "OMP_NUM_THREADS": str(threads)}
    with log.open("ab") as said:
        full = [sys.executable, "-m", *command]
        return subprocess.run(
            full, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, check=False
        ).returncode
