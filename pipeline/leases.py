"""Leases: the right of one job at a time to work on something, which passes on when the job dies.

A lease is an object {holder, token, term, renewed}, made if absent, renewed and taken over only in the version that was
read, and judged by the storage's own clock, so that the clocks of machines don't matter. It saves work; what must
happen once is ensured by who publishes it (`Store.create`).
"""

import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from pipeline.errors import MarlinError
from pipeline.storage import AlreadyExists, Conflict, NotFound, Store, Versioned
from pipeline.storage.manifest import to_json

_RENEWALS = 4
_log = logging.getLogger(__name__)


class Lease:
    """A lease that is held, and renewed by a thread. Use as a context manager: it is given back at the end.

    Args:
        store: where it lies.
        key: its object.
        content: what lies there.
        version: of the object.
    """

    def __init__(self, store: Store, key: str, content: dict[str, Any], version: str) -> None:
        self._store = store
        self._key = key
        self._content = content
        self._version = version
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        _give_back(self._store, self._key, self._content)

    def _renew(self) -> None:
        while not self._ended.wait(self._content["term"] / _RENEWALS):
            self._content["renewed"] += 1  # another version, so that who found it lapsed before can't take it now
            try:
                self._version = self._store.replace(self._key, to_json(self._content), self._version)
            except (Conflict, NotFound):
                if not self._is_ours():
                    _log.warning("%s/%s was taken over: this job was too slow to renew it", self._store.url, self._key)
                    return
            except MarlinError as error:
                _log.warning("can't renew %s/%s: %s", self._store.url, self._key, error)

    def _is_ours(self) -> bool:
        """Whether the last renewal came through and only its answer was lost; so taken until storage says otherwise."""
        try:
            found = self._store.read_versioned(self._key)
        except NotFound:
            return False
        except MarlinError:
            return True
        self._version = found.version
        return bool(_parse(found.data).get("token") == self._content["token"])


def take(store: Store, key: str, term: float) -> Lease | None:
    """The lease, if nobody holds it or its holder let it lapse; None where another holds it.

    Raises:
        ConditionalPutsIgnored: this server can't keep two jobs apart.
    """
    holder = f"{socket.gethostname()}-{os.getpid()}"
    content = {"holder": holder, "token": secrets.token_hex(8), "term": term, "renewed": 0}
    try:
        return _take(store, key, content)
    except BaseException:  # a stop signal may come when it is there and nobody holds it yet
        _give_back(store, key, content)
        raise


def _take(store: Store, key: str, content: dict[str, Any]) -> Lease | None:
    try:
        try:
            store.create(key, to_json(content))
            found = store.read_versioned(key)
            return Lease(store, key, content, found.version) if found.data == to_json(content) else None
        except AlreadyExists:
            found = store.read_versioned(key)
        if store.age(key) <= _term(found):
            return None
        version = store.replace(key, to_json(content), found.version)
    except (NotFound, Conflict):
        return None  # another was faster
    _log.info("took over %s/%s, whose holder let it lapse", store.url, key)
    return Lease(store, key, content, version)


def is_held(store: Store, key: str) -> bool:
    """Whether somebody holds a lease now."""
    try:
        found = store.read_versioned(key)  # first: what is taken over meanwhile is held
        return store.age(key) <= _term(found)
    except NotFound:
        return False


def _give_back(store: Store, key: str, content: Mapping[str, Any]) -> None:
    with suppress(MarlinError):  # where it can't be given back it lapses
        if _parse(store.read(key)).get("token") == content["token"]:
            store.delete(key)


def _term(found: Versioned) -> float:
    """Seconds that a lease is good for; what is no lease is good for none."""
    try:
        return float(_parse(found.data).get("term", 0))
    except (ValueError, TypeError):
        return 0.0


def _parse(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
