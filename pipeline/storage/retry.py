"""Trying again: how long to wait, and when to give up."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.storage.base import Unavailable

_FIRST_S = 0.1
_MOST_S = 20.0
_log = logging.getLogger(__name__)

T = TypeVar("T")


def pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row, from 1: twice as long each time, up to 20, and random.

    Many clients that failed at the same moment come back at different ones. From half of the time upwards, so that
    no client hammers.
    """
    return random.uniform(0.5, 1.0) * min(_MOST_S, _FIRST_S * 2.0 ** min(failures, 20))  # noqa: S311  no secret


def keep_trying(work: Callable[[], T], what: str, patience: float, stop: threading.Event) -> T:
    """The result of `work`, repeated while storage is `Unavailable`.

    Args:
        work: may be done twice: its first time may have come through with the answer lost.
        what: what is done, for the log.
        patience: seconds after the first failure from which on no new attempt is made.
        stop: no new attempt is made once it is set.

    Raises:
        Unavailable: storage was so until the end.
    """
    deadline = 0.0
    failures = 0
    while True:
        try:
            return work()
        except Unavailable as error:
            failures += 1
            deadline = deadline or time.monotonic() + patience
            left = deadline - time.monotonic()
            if left <= 0 or stop.is_set():
                raise Unavailable(f"{what}: storage failed for {patience - left:.0f} s: {error}") from error
            _log.warning("%s: %s; trying again for %.0f s", what, error, left)
            stop.wait(min(left, pause(failures)))
