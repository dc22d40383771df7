"""Objects that one job alone makes, on servers that can't keep two apart."""

import logging

from pipeline.storage.base import AlreadyExists, ConditionalPutsIgnored, Store

_log = logging.getLogger(__name__)


def create_alone(store: Store, key: str, data: bytes) -> None:
    """`Store.create`; where the server ignores conditional puts, a plain put of a key that was free a moment before.

    For what costs nothing worse than work done twice, by jobs of which users start one at a time.

    Raises:
        AlreadyExists: the key is taken.
    """
    try:
        store.create(key, data)
    except ConditionalPutsIgnored:
        _log.warning("%s: this S3 server ignores conditional puts: let no two jobs write here at once", store.url)
        if store.exists(key):
            raise AlreadyExists(f"{store.url}/{key} exists already: another run made it") from None
        store.write(key, data)
