"""How the preprocessing of a submission ended, for those that wait for it: `marks/<name>.json` in the run's folder."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import MarlinError, StoppedEarly
from pipeline.storage import NotFound, Store, Unavailable
from pipeline.storage.manifest import to_json

_log = logging.getLogger(__name__)


@contextmanager
def marked(run: Store, name: str) -> Iterator[None]:
    """Leave a mark of how the block ended; none where it was stopped or storage was away, which may be tried again.

    Raises:
        MarlinError: an earlier try failed for good: what waited for it has been told so.
    """
    reached(run, name)
    try:
        yield
    except (StoppedEarly, Unavailable):
        raise
    except MarlinError as error:
        try:
            _write(run, name, str(error))
        except MarlinError as unsaid:  # the first error is the one that is told
            _log.warning("%s", unsaid)
        raise
    _write(run, name, "")


def reached(run: Store, name: str) -> bool:
    """Whether what leaves this mark is done.

    Raises:
        MarlinError: it failed.
    """
    key = f"marks/{name}.json"
    try:
        reason = json.loads(run.read(key))["failed"]
    except NotFound:
        return False
    except (ValueError, KeyError, TypeError):
        raise MarlinError(f"{run.url}/{key} is no mark: delete it") from None
    if reason:
        raise MarlinError(f"{name}: preprocessing failed: {reason}")
    return True


def _write(run: Store, name: str, failed: str) -> None:
    run.write(f"marks/{name}.json", to_json({"schema": 1, "failed": failed}))
