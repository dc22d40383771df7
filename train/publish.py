"""Publication of checkpoints: training goes on while the files travel, and while storage is out of reach."""

import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import distributed

from pipeline.checkpoints import (
    check_uploaded,
    publish_checkpoint,
    remove_unpublished,
    step_name,
)
from pipeline.errors import MarlinError
from pipeline.storage import Store
from pipeline.storage.manifest import FileEntry, sha256_file, to_json
from pipeline.storage.retry import keep_trying
from train.retention import Retention, withdraw_old
from train.world import World

_POLL_SECONDS = 0.5
_CLOSING_SECONDS = 30.0
_log = logging.getLogger(__name__)

T = TypeVar("T")


class Publisher:
    """Uploads what a rank saved, in the background; rank 0 commits when all ranks are through.

    Args:
        run: the run's folder in storage.
        scratch: local folder for files on their way.
        world: this rank.
        retention: which checkpoints stay.
        patience: seconds that storage may be unavailable, and that rank 0 waits for the uploads of the others.
        committing: called on rank 0, in the background, before a checkpoint is published.
        committed: called there at the start, and when old ones have been withdrawn; a `MarlinError` costs a warning.
    """

    def __init__(
        self,
        run: Store,
        scratch: Path,
        world: World,
        retention: Retention,
        patience: float,
        *,
        committing: Callable[[], None] | None = None,
        committed: Callable[[], None] | None = None,
    ) -> None:
        self._run = run
        self._scratch = scratch
        self._world = world
        self._retention = retention
        self._patience = patience
        self._committing = committing
        self._afterwards = [committed] if committed else []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._pending: Future[None] | None = None
        self._closed = threading.Event()

    def remove_leftovers(self) -> None:
        """Remove in the background what earlier starts left half-published. Before the first publication."""
        if self._world.leads:
            self._pending = self._pool.submit(self._tidy, *self._afterwards)

    def publish(self, step: int, save: Callable[[Path], None], info: dict[str, Any]) -> None:
        """Save now, upload in the background. Waits first for an earlier upload. A collective call."""
        self.wait()
        attempt = _shared_name(self._world)
        local = self._scratch / f"{step_name(step)}-{attempt}-rank{self._world.rank}"
        try:
            local.mkdir(parents=True)
            save(local)
        except (OSError, RuntimeError) as error:  # torch's writer tells a full disk as a RuntimeError
            raise MarlinError(
                f"can't save step {step} to {local} ({str(error).splitlines()[0]}; "
                f"{shutil.disk_usage(self._scratch).free >> 20} MiB free): free space there, or set launch.scratch"
            ) from error
        prefix = f"checkpoints/{step_name(step)}/{attempt}"
        self._pending = self._pool.submit(self._upload, step, prefix, local, info)

    @property
    def busy(self) -> bool:
        """Whether a publication is under way."""
        return self._pending is not None and not self._pending.done()

    def wait(self) -> None:
        """Block until the last publication is done; raises what went wrong in it."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Stop the background thread after what it is doing; what storage does not take now is not tried again."""
        self._closed.set()
        self._pool.shutdown(wait=True)

    def _upload(self, step: int, prefix: str, local: Path, info: dict[str, Any]) -> None:
        entries = []
        for path in sorted(path for path in local.rglob("*") if path.is_file()):
            name = path.relative_to(local).as_posix()
            entries.append(FileEntry(name, path.stat().st_size, sha256_file(path)))
            self._keep_trying(step, partial(self._run.write_file, f"{prefix}/{name}", path))
        shutil.rmtree(local)
        if not self._world.leads:
            receipt = to_json([entry.to_dict() for entry in entries])
            self._keep_trying(step, partial(self._run.write, _receipt(prefix, self._world.rank), receipt))
        else:
            for rank in range(1, self._world.size):
                entries += self._receive(step, prefix, rank)
            self._keep_trying(step, partial(check_uploaded, self._run, prefix, entries))
            if self._committing is not None:
                self._keep_trying(step, self._committing)
            commit = partial(publish_checkpoint, self._run, step, prefix, entries, info)
            _log.info("published checkpoint %s", self._keep_trying(step, commit).name)
            self._tidy(partial(withdraw_old, self._run, self._retention), *self._afterwards)

    def _keep_trying(self, step: int, work: Callable[[], T]) -> T:
        return keep_trying(work, f"publishing checkpoint {step_name(step)}", self._patience, self._closed)

    def _receive(self, step: int, prefix: str, rank: int) -> list[FileEntry]:
        """What another rank has uploaded, once it says so."""
        key = _receipt(prefix, rank)
        start = time.monotonic()
        while not self._keep_trying(step, partial(self._run.exists, key)):
            waited = time.monotonic() - start
            if waited > (min(self._patience, _CLOSING_SECONDS) if self._closed.is_set() else self._patience):
                raise MarlinError(f"rank {rank} did not finish uploading {prefix} in {waited:.0f} s")
            time.sleep(_POLL_SECONDS)
        return [FileEntry.from_dict(item) for item in json.loads(self._keep_trying(step, partial(self._run.read, key)))]

    def _tidy(self, *works: Callable[[], None]) -> None:
        """Remove what is no longer needed. It may fail: what stays is removed after the next publication."""
        removal: Callable[[], None] = partial(remove_unpublished, self._run)
        for work in (*works, removal):
            try:
                work()
            except MarlinError as error:
                _log.warning("what is left of old checkpoints stays for now: %s", error)


def _receipt(prefix: str, rank: int) -> str:
    return f"{prefix}/rank-{rank:05d}.json"


def _shared_name(world: World) -> str:
    """A fresh name that all ranks know."""
    name = [secrets.token_hex(4) if world.leads else ""]
    if world.size > 1:
        distributed.broadcast_object_list(name, src=0)
    return name[0]
