"""What is asked of SLURM and of Kubernetes alike, once jobs are submitted."""

import contextlib
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import run_store
from pipeline.submit import slurm
from pipeline.submit.record import Job, Submission, submissions
from pipeline.submit.stages import Stage
from pipeline.submit.state import JobState

_log = logging.getLogger(__name__)


class Scheduler(Protocol):
    """Whoever runs the jobs of a submission."""

    def states(self, job: Job) -> list[JobState]:
        """How a job stands, one entry for each of an array."""

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Take jobs that have not ended out of the queue, in this order."""

    def logs(self, job: Job, *, words: bool) -> Iterator[str]:
        """Where its logs are, with `words` each followed by what marlin said last of an error, where it did."""


class Slurm:
    """SLURM, through its commands on this machine."""

    def states(self, job: Job) -> list[JobState]:
        """As `Scheduler` says."""
        return slurm.job_states(job.number)

    def cancel(self, jobs: Sequence[Job]) -> None:
        """As `Scheduler` says."""
        slurm.cancel([job.number for job in jobs])

    def logs(self, job: Job, *, words: bool) -> Iterator[str]:
        """As `Scheduler` says."""
        for path in sorted(Path(job.log).parent.glob(Path(job.log).name)):
            yield str(path)
            if words:
                with contextlib.suppress(OSError):
                    yield from last_words(path.read_text("utf-8", "replace"))


def scheduler_of(submission: Submission) -> Scheduler:
    """Who runs a submission.

    Raises:
        MarlinError: there is no way to ask it from here.
    """
    if submission.scheduler == "kubernetes":
        return _kubernetes(os.environ.get("KUBECONFIG"), submission.context, submission.namespace)
    return Slurm()


@cache
def _kubernetes(kubeconfig: str | None, context: str, namespace: str) -> Scheduler:
    """One client for all that is asked of a namespace: it begins by asking the cluster what it knows."""
    from pipeline.submit.k8s import Kubernetes

    return Kubernetes(context, namespace)


def ended(states: Sequence[JobState]) -> bool:
    """Whether a job will not run again."""
    return all(state.ended for state in states)


def refuse_queued(cfg: Config, scheduler: str, wanted: Collection[Stage]) -> None:
    """Two jobs of one stage would work against each other.

    Raises:
        MarlinError: one of the stages is queued already.
    """
    for submission in submissions(run_store(cfg)):
        for job in submission.jobs:
            if job.stage in wanted and not _ended_or_elsewhere(submission, job, scheduler):
                raise MarlinError(
                    f"{job.stage} of run {cfg.run.name} is queued already as job {job.number}: "
                    "`marlin submit cancel` first, or wait for its end"
                )


def _ended_or_elsewhere(submission: Submission, job: Job, scheduler: str) -> bool:
    """Whether a job is no more, as far as can be known: another kind of cluster need not answer here."""
    try:
        return ended(scheduler_of(submission).states(job))
    except MarlinError as error:
        if submission.scheduler == scheduler:
            raise
        _log.warning("job %s of an earlier submission may still run: %s", job.number, error)
        return True


def last_words(log: str) -> Iterator[str]:
    """What marlin said last of an error, where it did."""
    yield from [line for line in log.splitlines()[-200:] if line.startswith("marlin: ")][-1:]
