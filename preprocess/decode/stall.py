"""Ends a process that makes no progress: a decoder can loop for ever in native code, where no exception reaches it."""

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2
_limit: float | None = None
_in_step = False


def limit_steps(seconds: float) -> None:
    """From now on, no step of this process's work may take longer, or the process ends with status 1."""
    global _limit  # noqa: PLW0603  # one clock for a process, as faulthandler has it
    _limit = seconds


def begin_step() -> None:
    """The previous step is done, another one begins; nothing happens in processes without a limit."""
    global _in_step  # noqa: PLW0603
    if _limit is not None:
        _in_step = True
        faulthandler.dump_traceback_later(_limit, exit=True, file=_STDERR)


def end_steps() -> None:
    """The last step is done."""
    global _in_step  # noqa: PLW0603
    if _limit is not None:
        _in_step = False
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def others_step() -> Iterator[None]:
    """Another process is at work, with a limit of its own: the time of a step of this one stands still."""
    paused = _in_step
    if paused:
        end_steps()
    try:
        yield
    finally:
        if paused:
            begin_step()
