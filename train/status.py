"""How a run last ended, for launchers and people: `status.json` in the run's folder."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import MarlinError, StoppedEarly, UsageError
from pipeline.storage import AlreadyExists, ConditionalPutsIgnored, Conflict, NotFound, Store
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
    run.write(_KEY, _text(status))


def read_status(run: Store) -> Status | None:
    """The run's status, None where it never started or what it left is no status."""
    try:
        return _parse(run.read(_KEY))
    except NotFound:
        return None


def change_status(run: Store, change: Callable[[Status | None], Status | None]) -> None:
    """Replace the status by what `change` makes of it, or leave it where that is None; no other rank's word is lost."""
    while True:
        try:
            before = run.read_versioned(_KEY)
        except NotFound:
            before = None
        status = change(_parse(before.data) if before else None)
        if status is None:
            return
        try:
            if before is None:
                run.create(_KEY, _text(status))
            else:
                run.replace(_KEY, _text(status), before.version)
            return
        except (AlreadyExists, Conflict, NotFound):
            continue  # another rank was faster
        except ConditionalPutsIgnored:
            write_status(run, status)
            return


def _parse(data: bytes) -> Status | None:
    try:
        content = json.loads(data)
        return Status(content["state"], content["step"], content["reason"], content["usage"])
    except (ValueError, KeyError, TypeError):
        return None


def _text(status: Status) -> bytes:
    return to_json({"schema": 1, **status.__dict__})


def write_failure(run: Store, error: Exception, step: int | None = None) -> None:
    """Say in the run's status why it ended, unless another rank did: the first error is the cause of the others.

    Args:
        run: the run's folder.
        error: what ended it.
        step: updates done; None where none was reached, which leaves what the status says.
    """
    reason = str(error) if isinstance(error, MarlinError) else f"{type(error).__name__}: {first_line(error)}"
    state: State = "resumable" if isinstance(error, StoppedEarly) else "failed"

    def failed(before: Status | None) -> Status | None:
        if before is not None and before.state == "failed":
            return None
        done = step if step is not None else before.step if before else 0
        return Status(state, done, reason, usage=isinstance(error, UsageError))

    change_status(run, failed)
