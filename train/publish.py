"""Publication of checkpoints: training goes on while the files travel."""

import json
import logging
import secrets
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import distributed

from pipeline.checkpoints import delete_checkpoint, list_checkpoints, list_revisions, publish_checkpoint, step_name
from pipeline.errors import MarlinError
from pipeline.storage import Store
from pipeline.storage.manifest import FileEntry, sha256_file, to_json
from train.world import World

_POLL_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Publisher:
    """Uploads what a rank saved, in the background; rank 0 commits when all ranks are through.

    Args:
        run: the run's folder in storage.
        scratch: local folder for files on their way.
        world: this rank.
        keep: newest checkpoints that stay.
        timeout: seconds that rank 0 waits for the uploads of the others.
    """

    def __init__(self, run: Store, scratch: Path, world: World, keep: int, timeout: float) -> None:
        self._run = run
        self._scratch = scratch
        self._world = world
        self._keep = keep
        self._timeout = timeout
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._pending: Future[None] | None = None

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

    def wait(self) -> None:
        """Block until the last publication is done; raises what went wrong in it."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Stop the background thread after what it is doing."""
        self._pool.shutdown(wait=True)

    def _upload(self, step: int, prefix: str, local: Path, info: dict[str, Any]) -> None:
        entries = []
        for path in sorted(path for path in local.rglob("*") if path.is_file()):
            name = path.relative_to(local).as_posix()
            entries.append(FileEntry(name, path.stat().st_size, sha256_file(path)))
            self._run.write_file(f"{prefix}/{name}", path)
        shutil.rmtree(local)
        if not self._world.leads:
            content = to_json([entry.to_dict() for entry in entries])
            self._run.create(_receipt(prefix, self._world.rank), content)
            return
        for rank in range(1, self._world.size):
            entries += self._receive(prefix, rank)
        checkpoint = publish_checkpoint(self._run, step, prefix, entries, info)
        _log.info("published checkpoint %s", checkpoint.name)
        self._retire()

    def _receive(self, prefix: str, rank: int) -> list[FileEntry]:
        """What another rank has uploaded, once it says so."""
        key = _receipt(prefix, rank)
        deadline = time.monotonic() + self._timeout
        while not self._run.exists(key):
            if time.monotonic() > deadline:
                raise MarlinError(f"rank {rank} did not finish uploading {prefix} in {self._timeout:.0f} s")
            time.sleep(_POLL_SECONDS)
        received = [FileEntry.from_dict(item) for item in json.loads(self._run.read(key))]
        self._run.delete(key)
        return received

    def _retire(self) -> None:
        """Withdraw what is too old, and revisions that a later one of the same step replaced."""
        kept = {checkpoint.name for checkpoint in list_checkpoints(self._run)[-self._keep :]}
        for checkpoint in list_revisions(self._run):
            if checkpoint.name not in kept:
                delete_checkpoint(self._run, checkpoint)


def _receipt(prefix: str, rank: int) -> str:
    return f"{prefix}/rank-{rank:05d}.json"


def _shared_name(world: World) -> str:
    """A fresh name that all ranks know."""
    name = [secrets.token_hex(4) if world.leads else ""]
    if world.size > 1:
        distributed.broadcast_object_list(name, src=0)
    return name[0]
