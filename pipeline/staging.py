"""A dataset copied whole into a folder: for machines that have no network, or a slow one (`marlin dataset stage`)."""

import datetime
import fcntl
import hashlib
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock
from types import TracebackType
from typing import BinaryIO

from tqdm import tqdm

from pipeline.dataset import REMAKE, Dataset, file_entries, load_dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.storage import Store
from pipeline.storage.atomic import finish, os_error, whole_file
from pipeline.storage.base import TEMP_PREFIX, check_key
from pipeline.storage.local import LocalStore
from pipeline.storage.manifest import FileEntry, sha256_file, to_json
from pipeline.text import size_text
from pipeline.workers import Closed, Workers

_log = logging.getLogger(__name__)

_MARK = "staging.json"
"""Says whose copy a folder is to become; held locked by who makes it, gone when the copy is whole."""
_LINE_S = 30.0


@dataclass(frozen=True)
class Staged:
    """A whole copy: its files, their bytes, and how many of both this call brought."""

    files: int
    size: int
    new_files: int
    new_size: int


def stage(source: Store, target: Store, *, parallel: int = 8, progress: bool = True) -> Staged:
    """Copy a finished dataset; each file is checked by its sha256, what is there already stays.

    Args:
        source: the dataset.
        target: a local folder: empty, or with an earlier, perhaps unfinished, copy of the same dataset.
        parallel: files copied at the same time.
        progress: show how far it is.

    Raises:
        UsageError: `target` is not local, or holds something else.
        MarlinError: there is no finished dataset, it is damaged or changes meanwhile, or the folder has no room.
    """
    if not isinstance(target, LocalStore):
        raise UsageError(f"{target.url} is no folder: datasets are staged to a local or shared file system")
    dataset, head = _read(source)
    entries = [*_index(dataset), *dataset.shards.values()]
    folder = target.root
    try:
        with _marked(folder, dataset):
            missing = [entry for entry in entries if not _is_whole(folder, entry)]
            _check_room(folder, sum(entry.size for entry in missing))
            with _Progress(entries, missing, shown=progress) as done:
                _copy_all(source, folder, missing, parallel, done)
            if not target.exists("dataset.json"):
                target.write("dataset.json", head)
    except OSError as error:
        raise os_error(folder, error) from None
    return Staged(len(entries), sum(e.size for e in entries), len(missing), sum(e.size for e in missing))


def _read(source: Store) -> tuple[Dataset, bytes]:
    dataset, head = load_dataset(source), source.read("dataset.json")
    if hashlib.sha256(head).hexdigest() != dataset.identity:
        raise MarlinError(f"{source.url}/dataset.json was replaced meanwhile: run again when the dataset is at rest")
    return dataset, head


def _index(dataset: Dataset) -> list[FileEntry]:
    """The small files that dataset.json names."""
    where = f"{dataset.url}/dataset.json"
    units = file_entries(dataset.info, "units", where)
    if not dataset.info.get("exclusions"):
        return units
    return [*units, *file_entries({"exclusions": [dataset.info["exclusions"]]}, "exclusions", where)]


@contextmanager
def _marked(folder: Path, dataset: Dataset) -> Iterator[None]:
    """Have the folder for this dataset alone; what a killed call left half written is removed first."""
    folder.mkdir(parents=True, exist_ok=True)
    finished = folder / "dataset.json"
    if finished.exists() and sha256_file(finished) != dataset.identity:
        raise UsageError(f"{folder} holds another dataset than {dataset.url}: give an empty folder, or delete it")
    mark = folder / _MARK
    if not finished.exists() and not mark.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty and no copy of {dataset.url}: give an empty folder")
    with mark.open("a+b") as file:
        _hold(file, folder)
        file.seek(0)
        text = file.read()
        if text and _identity(text) != dataset.identity:
            raise UsageError(f"{folder} holds a half copy of another dataset than {dataset.url}: delete it first")
        if not text:
            file.write(to_json({"identity": dataset.identity, "from": dataset.url}))
            finish(file)
        for left in folder.rglob(f"{TEMP_PREFIX}*"):
            left.unlink()
        yield
        mark.unlink()


def _hold(file: BinaryIO, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MarlinError(f"{folder}: another `marlin dataset stage` is at work there: wait for it") from None


def _identity(mark: bytes) -> str:
    try:
        return str(json.loads(mark)["identity"])
    except (ValueError, KeyError, TypeError):
        return ""


def _is_whole(folder: Path, entry: FileEntry) -> bool:
    # The sha256 was checked before the file got its name.
    path = folder / check_key(entry.name)
    return path.is_file() and path.stat().st_size == entry.size


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MarlinError(
            f"{folder} needs {size_text(needed)} more and the disk has {size_text(free)} free: "
            "free some space, or give a folder on a larger one"
        )


def _copy_all(source: Store, folder: Path, entries: list[FileEntry], parallel: int, done: "_Progress") -> None:
    stopped, workers = Event(), Workers(parallel, "stage")
    try:
        copies = [workers.submit(partial(_copy, source, folder, entry, done, stopped)) for entry in entries]
        for copy in copies:
            copy.result()
    finally:
        stopped.set()
        workers.close()


def _copy(source: Store, folder: Path, entry: FileEntry, done: "_Progress", stopped: Event) -> None:
    digest, path = hashlib.sha256(), folder / entry.name
    try:
        with whole_file(path) as file:
            for piece in source.stream(entry.name):
                if stopped.is_set():
                    raise Closed
                digest.update(piece)
                file.write(piece)
                done.add(len(piece))
            if digest.hexdigest() != entry.sha256:
                raise MarlinError(
                    f"{source.url}/{entry.name} is not the file that the dataset lists (sha256 differs): "
                    f"restore it, or {REMAKE}"
                )
    except OSError as error:
        raise os_error(path, error) from None


class _Progress:
    """Bytes done, rate and time left: a bar on a terminal, a line now and then in a log."""

    def __init__(self, entries: list[FileEntry], missing: list[FileEntry], *, shown: bool) -> None:
        self._total = sum(entry.size for entry in entries)
        self._before = self._done = self._total - sum(entry.size for entry in missing)
        self._lock = Lock()
        self._start = self._told = time.monotonic()
        self._shown = shown
        self._bar = tqdm(
            desc="stage",
            total=self._total,
            initial=self._done,
            unit="B",
            unit_scale=True,
            disable=not (shown and sys.stderr.isatty()),
        )

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.close()

    def add(self, size: int) -> None:
        """Count bytes; from any thread."""
        with self._lock:
            self._done += size
            self._bar.update(size)
            now = time.monotonic()
            if self._shown and self._bar.disable and now - self._told >= _LINE_S:
                self._told = now
                rate = (self._done - self._before) / (now - self._start)
                left = datetime.timedelta(seconds=round((self._total - self._done) / rate))
                _log.info(
                    "staged %s of %s, %s/s, %s left", *map(size_text, (self._done, self._total, round(rate))), left
                )
