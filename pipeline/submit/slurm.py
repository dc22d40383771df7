"""SLURM's commands: argument lists in, plain values out."""

import logging
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import MarlinError
from pipeline.submit.state import JobState

_TIMEOUT_S = 60
_UNKNOWN_JOB = "Invalid job id"


_log = logging.getLogger(__name__)


class NoSlurm(MarlinError):
    """SLURM's commands are not on this machine."""


def sbatch_command(script: Path, arguments: Sequence[str], after: Sequence[str]) -> list[str]:
    """The command that queues a batch script; a dependency that can't be met any more takes the job with it.

    Args:
        script: the file.
        arguments: what the script is called with.
        after: dependencies, such as `afterok:12`.
    """
    waits = [f"--dependency={','.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
    return ["sbatch", "--parsable", *waits, str(script), *arguments]


def submit(script: Path, arguments: Sequence[str], after: Sequence[str]) -> str:
    """Queue a batch script, as `sbatch_command`; returns the job's number.

    Raises:
        MarlinError: no sbatch here, or SLURM refuses, with its words.
    """
    return _run(sbatch_command(script, arguments, after)).strip().split(";")[0]


def job_states(number: str) -> list[JobState]:
    """State of a job, one entry for each of an array; the accounts answer for what the controller has forgotten.

    Raises:
        MarlinError: SLURM does not answer.
    """
    try:
        text = _run(["scontrol", "show", "job", "--oneliner", number])
    except MarlinError as error:
        if _UNKNOWN_JOB not in str(error):
            raise
        return _accounted(number)
    return [_parse(line) for line in text.splitlines() if line.startswith("JobId=")]


def queued(number: str) -> bool:
    """Whether a job runs or may run again; a controller that does not answer has lost none.

    Raises:
        NoSlurm: it can't be asked here.
    """
    try:
        return not all(state.ended for state in job_states(number))
    except NoSlurm:
        raise
    except MarlinError as error:
        _log.warning("%s", error)
        return True


def cancel(numbers: Sequence[str]) -> None:
    """Cancel jobs with `scancel`.

    Raises:
        MarlinError: SLURM refuses, with its words.
    """
    _run(["scancel", *numbers])


def _parse(line: str) -> JobState:
    reason = _field(line, "Reason")
    return JobState(
        state=_field(line, "JobState"),
        reason="" if reason == "None" else reason,
        exit_status=int(_field(line, "ExitCode").split(":")[0] or 0),
        restarts=int(_field(line, "Restarts") or 0),
    )


def _field(line: str, name: str) -> str:
    found = re.search(rf" {name}=(\S*)", line)
    return found[1] if found else ""


def _accounted(number: str) -> list[JobState]:
    command = ["sacct", f"--jobs={number}", "--allocations", "--noheader", "--parsable2", "--format=State,ExitCode"]
    try:
        lines = _run(command).splitlines()
    except MarlinError:  # no accounting here
        lines = []
    rows = [line.split("|") for line in lines]
    return [JobState(row[0].split()[0], exit_status=int(row[1].split(":")[0])) for row in rows] or [JobState("UNKNOWN")]


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except FileNotFoundError:
        raise NoSlurm(
            f"no {command[0]} on PATH: run this on a login node of the cluster, or load the site's SLURM module"
        ) from None
    except subprocess.TimeoutExpired:
        raise MarlinError(f"{command[0]} did not answer within {_TIMEOUT_S} s: is the SLURM controller up?") from None
    if done.returncode:
        words = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise MarlinError(f"{command[0]} refused: {' '.join(words.split())}")
    return done.stdout
