"""Ranks that lose those of another node: its machine is gone, or they failed and said so."""

import os
import time

from torch import distributed

from pipeline.errors import StoppedEarly
from pipeline.storage import Store, Unavailable
from pipeline.text import first_line
from train.status import read_status
from train.world import LAUNCHER, World

_WORD = 10.0
"""Seconds for the word of a rank that fails, or of the launcher of one that is killed, to be in the run's status; and
for a scheduler to see that pod or task end before this one."""


def error_or_loss(run: Store, error: Exception, world: World | None) -> Exception:
    """What a rank ends with: its own error, or a stop where all it knows is that the ranks of another node are gone.

    Args:
        run: the run's folder.
        error: what ended it.
        world: this rank, once it has joined.
    """
    launched = world is not None and world.nodes > 1 and LAUNCHER in os.environ
    if not launched or not _is_lost_connection(error):
        return error
    if last_word(run) in ("failed", "unknown"):
        return error
    return StoppedEarly(f"the ranks of another node are gone without a word ({first_line(error)})")


def last_word(run: Store) -> str:
    """The state in the run's status once a rank that failed has had time to say so; "unknown": storage is away."""
    time.sleep(_WORD)
    try:
        status = read_status(run)
    except Unavailable:
        return "unknown"
    return "running" if status is None else status.state


def _is_lost_connection(error: Exception) -> bool:
    if isinstance(error, (distributed.DistBackendError, distributed.DistNetworkError)):
        return True
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)  # gloo's have no class of their own
