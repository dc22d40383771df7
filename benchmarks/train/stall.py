"""The share of its time that a trainer waits for data: from local disk, from S3 with 50 ms of latency, and a peer.

    python -m benchmarks.train.stall

The trainer is a clock: it takes a batch and sleeps, so that it asks for 50, 80 or 95% of the clips that the loader can
give: from local disk what it can decode, from S3 what it reads when nothing is cached and nobody waits, both measured
first in the same run. The S3 server is a real one, behind a proxy that holds each request up. A server has machines of
its own in real life: here it runs at the lowest priority. `cpu busy` tells when there is nothing left to decode with.

Peer: the cache as it was, which fetches a whole shard when a clip of it is read; with a bound, the least recently used
shard goes.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import torch

from benchmarks.results import publish
from pipeline.config.schema import Config
from pipeline.dataset import Dataset, load_dataset
from pipeline.storage import Store, open_store
from pipeline.storage.manifest import FileEntry, sha256_file
from pipeline.storage.s3 import S3Store
from tests.s3_server import run_s3_server
from tests.synthetic import DrawnTrack, write_dataset
from train.data import loader as loading
from train.data.cache.ranges import Span

BATCH = 16
RATES = (0.5, 0.8, 0.95)
# Cheap ranges: by default the server reads 4 MB for each, and would take the CPU that decoding needs.
SERVER = ("-filer.maxMB=1", "-s3.cacheCapacityMB=2000")


class OnDemand:
    """The peer's access: whole shards, fetched by the reader that needs them."""

    def __init__(self, store: Store, shards: Mapping[str, FileEntry], folder: Path, limit: float) -> None:
        self._store, self._shards, self._folder, self._limit = store, shards, folder, limit
        self._files: OrderedDict[str, int] = OrderedDict()

    def announce(self, spans: Iterable[Span]) -> None:
        """Nothing."""

    def want(self, shards: Iterable[str]) -> None:
        """Nothing."""

    def read(self, span: Span) -> bytes:
        """Fetch if need be, evict if need be, read."""
        if span.shard not in self._files:
            self._fetch(self._shards[span.shard])
        self._files.move_to_end(span.shard)
        return os.pread(self._files[span.shard], span.length, span.offset)

    def _fetch(self, entry: FileEntry) -> None:
        while self._files and entry.size + sum(self._shards[name].size for name in self._files) > self._limit:
            os.close(self._files.popitem(last=False)[1])
        path = self._folder / "shard"
        self._store.fetch(entry.name, path)
        if sha256_file(path) != entry.sha256:
            raise RuntimeError(entry.name)
        self._files[entry.name] = os.open(path, os.O_RDONLY)
        path.unlink()

    def recover(self, shard: str) -> bool:
        """No."""
        return False

    def close(self) -> None:
        """Close all files."""
        while self._files:
            os.close(self._files.popitem()[1])


class Trainer:
    """Reads a dataset at a set rate and keeps account of it."""

    def __init__(self, threads: int, steps: int) -> None:
        self.threads, self.steps = threads, steps

    def config(self, folder: Path, cache_gb: float | None, micros: int) -> Config:
        """The loader's part is what counts."""
        return Config.model_validate(
            {
                "data": {"threads": self.threads, "cache_dir": str(folder), "cache_gb": cache_gb},
                "train": {"steps": 1, "global_batch": BATCH, "micro_batch": BATCH // micros},
            }
        )

    def capacity(self, url: str, folder: Path) -> float:
        """Clips a second without a trainer, after the first batch."""
        store = open_store(url)
        cfg = self.config(folder, None, 1)
        with loading.open_loader(cfg, load_dataset(store), store, split="train", rank=0, world=1) as batches:
            next(batches)
            start = time.perf_counter()
            for _ in range(self.steps):
                next(batches)
            return BATCH * self.steps / (time.perf_counter() - start)

    def run(
        self,
        url: str,
        demand: float,
        folder: Path,
        *,
        cache_gb: float | None = None,
        micros: int = 1,
        steps: int | None = None,
    ) -> dict[str, float]:
        """One run from its start: seconds to the first batch, the share of time waited afterwards, and what it took.

        `demand` is in clips a second; a step takes `micros` batches at once.
        """
        store = open_store(url)
        dataset = load_dataset(store)
        step_s, steps = BATCH / demand, steps or self.steps
        waits, cold = [], 0
        begin = time.perf_counter()
        with loading.open_loader(
            self.config(folder, cache_gb, micros), dataset, store, split="train", rank=0, world=1
        ) as batches:
            held = list(islice(batches, micros))
            first = time.perf_counter()
            idle = psutil.cpu_times().idle
            for step in range(steps):
                time.sleep(step_s)
                held.clear()  # giving its memory back is the trainer's time
                asked = time.perf_counter()
                held = list(islice(batches, micros))
                waits.append(time.perf_counter() - asked)
                if len(list(folder.glob("*.tar"))) < len(dataset.shards):
                    cold = step + 1
            end = time.perf_counter()
            idle = psutil.cpu_times().idle - idle
        found = {
            "start-up s": first - begin,
            "waited": sum(waits) / (end - first),
            "cpu busy": 1 - idle / (end - first) / (os.cpu_count() or 1),
        }
        if 0 < cold < steps:
            warm = waits[cold:]
            found["waited once all shards are here"] = sum(warm) / (sum(warm) + step_s * len(warm))
        return found


@contextlib.contextmanager
def on_demand(folder: Path, limit: float) -> Iterator[None]:
    """Loaders read through the peer."""

    def open_access(data: Any, store: Store, shards: Mapping[str, FileEntry], **_: Any) -> OnDemand:
        return OnDemand(store, shards, folder, limit)

    with patch.object(loading, "open_access", open_access):
        yield


@contextlib.contextmanager
def counted() -> Iterator[list[int]]:
    """Bytes that come from the server."""
    read = [0]

    def count(name: str) -> Callable[..., Any]:
        method = getattr(S3Store, name)

        def ranged(self: S3Store, key: str, start: int, length: int) -> bytes:
            read[0] += length
            return bytes(method(self, key, start, length))

        def streamed(self: S3Store, key: str) -> Iterator[bytes]:
            for piece in method(self, key):
                read[0] += len(piece)
                yield piece

        def fetched(self: S3Store, key: str, path: Path) -> None:
            method(self, key, path)
            read[0] += path.stat().st_size

        return {"read_range": ranged, "stream": streamed, "fetch": fetched}[name]

    with contextlib.ExitStack() as patches:
        for name in ("read_range", "stream", "fetch"):
            patches.enter_context(patch.object(S3Store, name, count(name)))
        yield read


@contextlib.contextmanager
def served(source: Path, folder: Path, delay: float) -> Iterator[str]:
    """The dataset on a real S3 server, each request `delay` seconds late; its URL."""
    with run_s3_server(folder, SERVER) as server:
        os.environ.update(server.environment)
        store = open_store(f"s3://{server.bucket}/faces")
        for path in sorted(source.rglob("*")):
            if path.is_file():
                store.write_file(path.relative_to(source).as_posix(), path)
        command = [sys.executable, "-m", "tests.proxy", server.endpoint, "--delay", str(delay)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
            os.environ["AWS_ENDPOINT_URL"] = next(iter(proxy.stdout or ())).strip()
            for process in psutil.Process().children(recursive=True):
                process.nice(19)
            try:
                yield store.url
            finally:
                proxy.terminate()


def measure(trainer: Trainer, source: Path, scratch: Path, delay: float) -> dict[str, Any]:
    """All runs, by name."""
    figures: dict[str, Any] = {}

    def note(name: str, found: Mapping[str, float]) -> None:
        figures.update({f"{name}: {key}": round(value, 4) for key, value in found.items()})
        print(name, {key: round(value, 4) for key, value in found.items()}, flush=True)

    def fresh() -> Path:
        return Path(tempfile.mkdtemp(dir=scratch))

    capacity = trainer.capacity(str(source), scratch)
    figures["capacity from local disk, clips/s"] = round(capacity, 1)
    for rate in RATES:
        note(f"local, {rate:.0%}", trainer.run(str(source), rate * capacity, scratch))
    note(f"local, {RATES[-1]:.0%}, 4 at once", trainer.run(str(source), RATES[-1] * capacity, scratch, micros=4))
    with served(source, fresh(), delay) as url:
        cold = trainer.capacity(url, fresh())
        figures["capacity from S3, nothing cached, clips/s"] = round(cold, 1)
        for rate in RATES:
            note(f"S3 cold, {rate:.0%}", trainer.run(url, rate * cold, fresh()))
        folder = fresh()
        note(f"S3 cold, {RATES[0]:.0%}, 4 at once", trainer.run(url, RATES[0] * cold, folder, micros=4))
        note(f"S3 warm, {RATES[-1]:.0%}", trainer.run(url, RATES[-1] * capacity, folder))
        with on_demand(fresh(), float("inf")):
            note(f"S3 cold, {RATES[0]:.0%}, peer", trainer.run(url, RATES[0] * cold, fresh()))
        size = _size(load_dataset(open_store(url)))
        peer = on_demand(fresh(), size / 2)
        # The peer needs minutes: a tenth of the steps show as much.
        for name, access, steps in (
            ("", contextlib.nullcontext(), trainer.steps),
            (", peer", peer, trainer.steps // 10),
        ):
            with access, counted() as read:
                found = trainer.run(url, RATES[0] * cold, fresh(), cache_gb=size / 2e9, steps=steps)
                found["MB a clip from S3"] = read[0] / 1e6 / (steps + 1) / BATCH
            note(f"S3, cache of half the shards, {RATES[0]:.0%}{name}", found)
    return figures


def _size(dataset: Dataset) -> int:
    return sum(shard.size for shard in dataset.shards.values())


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="decoding threads (default: 1)")
    parser.add_argument("--steps", type=int, default=60, help="batches of a run (default: 60)")
    parser.add_argument("--shards", type=int, default=16, help="shards of 37 MB (default: 16)")
    parser.add_argument("--delay", type=float, default=0.05, help="latency added to each request (default: 0.05 s)")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tracks = [DrawnTrack(f"{number}.mp4", train=(64,) * 40, val=()) for number in range(args.shards)]
    with tempfile.TemporaryDirectory(prefix="marlin-bench-") as name:
        scratch, source = Path(name), Path(name, "faces")
        write_dataset(open_store(str(source)), tracks, size=224, patch=16, label_maps=False)
        figures: dict[str, Any] = {"threads": args.threads, "steps": args.steps, "latency s": args.delay}
        figures["shards, MB"] = round(_size(load_dataset(open_store(str(source)))) / 1e6)
        figures |= measure(Trainer(args.threads, args.steps), source, scratch, args.delay)
    publish("stall", "python -m benchmarks.train.stall", figures, args.output)


if __name__ == "__main__":
    main()
