"""Ends a process that makes no progress: a decoder can loop for ever in native code, where no exception reaches it."""

import faulthandler

_STDERR = 2
_limit: float | None = None


def limit_steps(seconds: float) -> None:
    """From now on, no step of this process's work may take longer, or the process ends with status 1."""
    global _limit  # noqa: PLW0603  # one clock for a process, as faulthandler has it
    _limit = seconds


def begin_step() -> None:
    """The previous step is done, another one begins; nothing happens in processes without a limit."""
    if _limit is not None:
        faulthandler.dump_traceback_later(_limit, exit=True, file=_STDERR)


def end_steps() -> None:
    """The last step is done."""
    if _limit is not None:
        faulthandler.cancel_dump_traceback_later()
