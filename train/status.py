"""How a run last ended, for launchers and people: `status.json` in the run's folder."""

import json
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import MarlinError, StoppedEarly, UsageError
from pipeline.storage import NotFound, Store
from pipeline.storage.manifest import to_json
from pipeline.text import first_line

State = Literal["running", "done", "resumable", "failed"]
_KEY = "status.json"


@dataclass(frozen=True)
class Status:
    """State of a run after ``step`` updates; ``reason`` says why where it did not end well."""

    state: State
    step: int
    reason: str = ""
    usage: bool = False  # the reason is wrong usage or configuration


def write_status(run: Store, status: Status) -> None:
    """Replace the run's status."""
    run.write(_KEY, to_json({"schema": 1, **status.__dict__}))


def read_status(run: Store) -> Status | None:
    """The run's status, None where it never started or what it left is no status."""
    try:
        content = json.loads(run.read(_KEY))
    except (NotFound, ValueError):
        return None
    return Status(content["state"], content["step"], content["reason"], content["usage"])


def write_failure(run: Store, error: Exception, step: int) -> None:
    """Say in the run's status why it ended, unless another rank did: the first error is the cause of the others."""
    before = read_status(run)
    if before is not None and before.state == "failed":
        return
    reason = str(error) if isinstance(error, MarlinError) else f"{type(error).__name__}: {first_line(error)}"
    state: State = "resumable" if isinstance(error, StoppedEarly) else "failed"
    write_status(run, Status(state, step, reason, usage=isinstance(error, UsageError)))
