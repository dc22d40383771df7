"""Copies of remote shards on this machine, shared by all processes that train here."""

from pathlib import Path

from pipeline.dataset import REMAKE
from pipeline.errors import MarlinError
from pipeline.storage import ReadStore
from pipeline.storage.atomic import locked, os_error
from pipeline.storage.manifest import FileEntry, sha256_file


class NodeCache:
    """Shards by their sha256: a copy is complete and verified, or not there.

    Safe for concurrent processes: one fetches a shard while the others wait for it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, store: ReadStore, shard: FileEntry) -> Path:
        """The local copy of a shard, fetched from `store` if need be.

        Raises:
            MarlinError: the shard is missing, is not the one that the dataset lists, or the folder cannot hold it.
        """
        copy = self._folder / f"{shard.sha256}.tar"
        if _complete(copy, shard):
            return copy
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with locked(self._folder / f"{shard.sha256}.lock"):
                if not _complete(copy, shard):
                    self._fetch(store, shard, copy)
        except OSError as error:
            raise os_error(self._folder, error) from None
        return copy

    def _fetch(self, store: ReadStore, shard: FileEntry, copy: Path) -> None:
        # The name is fixed, so what a killed process left is overwritten; the lock keeps others away.
        part = copy.with_suffix(".part")
        try:
            store.fetch(shard.name, part)
            if sha256_file(part) != shard.sha256:
                raise MarlinError(
                    f"{store.url}/{shard.name} is not the file that the dataset lists (sha256 differs): "
                    f"restore it, or {REMAKE}"
                )
            part.replace(copy)
        finally:
            part.unlink(missing_ok=True)


def _complete(copy: Path, shard: FileEntry) -> bool:
    # The sha256 was checked before the name appeared.
    return copy.is_file() and copy.stat().st_size == shard.size
