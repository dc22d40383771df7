"""Reading the drawn dataset as a remote one, and waiting for what happens in the background."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from drawn import Drawn

from pipeline.config.schema import Config
from pipeline.storage.local import LocalStore
from train.data.cache.ranges import Span
from train.data.loader import Loader, open_loader

SECONDS = 60


@dataclass(frozen=True)
class RemoteStore(LocalStore):
    """A store that has no files to read from, as S3; remembers what is asked of it."""

    streamed: list[str] = field(default_factory=list)
    ranges: list[Span] = field(default_factory=list)
    gate: threading.Event | None = None

    def local_path(self, key: str) -> None:
        return None

    def stream(self, key: str) -> Iterator[bytes]:
        self.streamed.append(key)
        yield from super().stream(key)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        self.ranges.append(Span(key, start, length))
        if self.gate is not None:
            self.gate.wait()
        return super().read_range(key, start, length)


def remote(drawn: Drawn, **options: Any) -> RemoteStore:
    return RemoteStore(Path(drawn.store.url), **options)


def open_train(
    cfg: Config, drawn: Drawn, store: LocalStore, *, rank: int = 0, world: int = 1, nodes: int = 1
) -> Loader:
    return open_loader(cfg, drawn.dataset, store, split="train", rank=rank, world=world, nodes=nodes)


def take(cfg: Config, drawn: Drawn, store: Any, count: int) -> torch.Tensor:
    with open_train(cfg, drawn, store) as loader:
        return torch.cat([next(loader).clips_BCTHW for _ in range(count)])


def read_until(loader: Loader, done: Callable[[], object]) -> None:
    """Read on until something holds that happens in the background."""
    end = time.monotonic() + SECONDS
    while not done():
        next(loader)
        assert time.monotonic() < end


def copies(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.tar")}


def fill(cfg: Config, drawn: Drawn, folder: Path) -> None:
    """Copies of all shards."""
    with open_train(cfg, drawn, remote(drawn)) as loader:
        read_until(loader, lambda: len(copies(folder)) == len(drawn.dataset.shards))
