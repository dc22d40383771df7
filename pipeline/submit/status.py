"""How the jobs of a run stand, and taking them out of the queue."""

from collections import Counter
from collections.abc import Mapping, Sequence

from pipeline.errors import MarlinError
from pipeline.storage import Store
from pipeline.submit.record import Job, Submission, submissions
from pipeline.submit.schedulers import ended, scheduler_of
from pipeline.submit.state import JobState
from pipeline.text import plural, table

_NEVER = "DependencyNeverSatisfied"


def status_text(run: Store) -> str:
    """The newest submission of each stage: its state, why, its log; and what the run says of itself.

    Raises:
        MarlinError: nothing was submitted, or the cluster does not answer.
    """
    newest = _newest(run)
    schedulers = {submission.name: scheduler_of(submission) for submission, _ in newest.values()}
    states = {stage: schedulers[submission.name].states(job) for stage, (submission, job) in newest.items()}
    rows = [("run", [_run_text(run)])]
    for stage, (submission, job) in newest.items():
        lines = [f"job {job.number}: {_states_text(states[stage])}{_why(job, newest, states)}"]
        unwell = _failed(states[stage]) or any(state.restarts for state in states[stage])
        rows.append((stage, [*lines, *schedulers[submission.name].logs(job, words=unwell)]))
    return table(rows)


def cancel_jobs(run: Store) -> list[str]:
    """Cancel every job of a run that has not ended; returns their numbers or names.

    Raises:
        MarlinError: nothing was submitted, or the cluster does not answer.
    """
    cancelled = []
    for submission in _submissions(run):
        scheduler = scheduler_of(submission)
        # What waits goes first: it would start when what it waits for ends.
        left = [job for job in reversed(submission.jobs) if not ended(scheduler.states(job))]
        if left:
            scheduler.cancel(left)
        cancelled += [job.number for job in left]
    return cancelled


def _submissions(run: Store) -> list[Submission]:
    found = list(submissions(run))
    if not found:
        raise MarlinError(f"nothing of {run.url} was submitted: run `marlin submit slurm -c CONFIG`, or k8s")
    return found


def _newest(run: Store) -> Mapping[str, tuple[Submission, Job]]:
    return {job.stage: (submission, job) for submission in _submissions(run) for job in submission.jobs}


def _run_text(run: Store) -> str:
    from train.status import read_status

    status = read_status(run)
    if status is None:
        return f"{run.url}: not trained yet"
    return f"{run.url}: {status.state} after {plural(status.step, 'step')}" + f": {status.reason}" * bool(status.reason)


def _states_text(states: Sequence[JobState]) -> str:
    counts = Counter(_state_text(state) for state in states)
    if len(states) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {text}" for text, count in counts.items())


def _state_text(state: JobState) -> str:
    text = state.state
    if state.exit_status:
        text += f" with exit status {state.exit_status}"
    if state.restarts:
        text += f", restarted {plural(state.restarts, 'time')}"
    if state.reason and not (state.ended and state.reason.isalpha()):  # one word of an ended job says nothing new
        text += f" ({state.reason})"
    return text


def _why(job: Job, newest: Mapping[str, tuple[Submission, Job]], states: Mapping[str, Sequence[JobState]]) -> str:
    """What a job that never ran, or that waits in vain, was to wait for."""
    if not any(state.state == "CANCELLED" and state.reason == _NEVER for state in states[job.stage]):
        failed = [stage for stage in job.after if stage in newest and _failed(states[stage])]
        waits = failed and not ended(states[job.stage])
        return f": it waits in vain, {' and '.join(failed)} did not succeed; cancel it" if waits else ""
    needed = {number for each in job.after for number in each.split(":")[1:]}
    culprits = [stage for stage, (_, other) in newest.items() if other.number in needed and _failed(states[stage])]
    return f", because {' and '.join(culprits)} did not succeed" if culprits else ", because of what it waited for"


def _failed(states: Sequence[JobState]) -> bool:
    return any(state.ended and state.state != "COMPLETED" for state in states)
