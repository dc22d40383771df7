"""The loader: micro batches of a rank, resumed exactly from the number of samples consumed."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import torch

from pipeline.assets import cache_dir
from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.errors import UsageError
from pipeline.storage import Store
from train.data.batch import Batch, assemble
from train.data.cache import NodeCache
from train.data.plan import Clip, TrainPlan, accumulation, centre_clips, first_step, rank_slice
from train.data.shards import ShardReader, UInt8s
from train.data.synthetic import synthetic_batches

CPU = torch.device("cpu")


class Loader(Iterator[Batch]):
    """Batches, and the decoding threads and files behind them: close it, or use it as a context manager."""

    def __init__(self, batches: Generator[Batch, None, None]) -> None:
        self._batches = batches

    def __next__(self) -> Batch:
        return next(self._batches)

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop decoding and close all files."""
        self._batches.close()


def open_loader(
    cfg: Config,
    dataset: Dataset | None,
    store: Store | None,
    *,
    split: str,
    rank: int,
    world: int,
    consumed: int = 0,
    device: torch.device = CPU,
) -> Loader:
    """Endless micro batches of one rank of a training run.

    Args:
        cfg: the run.
        dataset: what to read; not needed under `data.source=synthetic`.
        store: where the dataset lies.
        split: "train" or "val".
        rank: this process, of `world`.
        world: processes that share each global batch.
        consumed: samples of the run consumed before, by all ranks together: the whole state of the loader.
        device: where batches shall lie; frames travel there as bytes and become floats there.

    Raises:
        UsageError: batch, world, streams and dataset do not fit each other; the message names what does.
        MarlinError: while iterating: a shard is missing or damaged.
    """
    micros, first = accumulation(cfg, world), first_step(cfg, consumed)
    if cfg.data.source == "synthetic":
        return Loader(synthetic_batches(cfg, rank=rank, world=world, consumed=consumed, device=device))
    if dataset is None or store is None:
        raise UsageError("data.source=shards needs a dataset: set data.dataset")
    _check_device(cfg, device)
    plan = TrainPlan(cfg, dataset, split)

    def group(index: int) -> list[Clip]:
        return plan.step(first + index // micros, rank_slice(cfg, rank, world, index % micros))

    return Loader(_batches(cfg, dataset, store, group, total=None, device=device))


def fixed_clips(
    cfg: Config, dataset: Dataset, store: Store, *, split: str, limit: int, device: torch.device = CPU
) -> Loader:
    """The same clips at every call: the centre clip of each sample of a split, for validation and evaluation.

    Args:
        cfg: the run; `eval.seed` decides the hashes, `train.micro_batch` the size of a batch (the last may be smaller).
        dataset: what to read.
        store: where the dataset lies.
        split: "train" or "val".
        limit: at most this many clips, spread evenly over the split.
        device: where batches shall lie.
    """
    _check_device(cfg, device)
    clips = centre_clips(cfg, dataset, split, limit)
    size = cfg.train.micro_batch

    def group(index: int) -> list[Clip]:
        # The decoder reads ahead, and always groups of one size: the last clip fills up.
        return [clips[min(position, len(clips) - 1)] for position in range(index * size, (index + 1) * size)]

    return Loader(_batches(cfg, dataset, store, group, total=len(clips), device=device))


def total_steps(cfg: Config, dataset: Dataset | None) -> int:
    """Optimiser steps of a run: `train.steps`, or as many as hold `train.epochs` epochs.

    Raises:
        UsageError: the dataset does not fit the batch, or the length is in epochs and there is no dataset.
    """
    if cfg.train.steps is not None:
        return cfg.train.steps
    return math.ceil((cfg.train.epochs or 0) * _epoch_items(cfg, dataset) / cfg.train.global_batch)


def steps_per_epoch(cfg: Config, dataset: Dataset | None) -> int:
    """Steps of an epoch, rounded up: epochs follow each other without a gap, so a step may lie in two of them."""
    return math.ceil(_epoch_items(cfg, dataset) / cfg.train.global_batch)


def _epoch_items(cfg: Config, dataset: Dataset | None) -> int:
    if cfg.data.source == "synthetic" or dataset is None:
        raise UsageError("data.source=synthetic has no epochs: set train.steps instead of train.epochs")
    order = TrainPlan(cfg, dataset, "train").order
    return order.streams * order.length


def _check_device(cfg: Config, device: torch.device) -> None:
    if cfg.data.decode_device == "mixed" and device.type != "cuda":
        raise UsageError("data.decode_device=mixed decodes on a GPU and this process has none: set it to cpu")


def _batches(
    cfg: Config,
    dataset: Dataset,
    store: Store,
    group: Callable[[int], Sequence[Clip]],
    *,
    total: int | None,
    device: torch.device,
) -> Generator[Batch, None, None]:
    """Decode groups 0, 1, … of `train.micro_batch` clips; stop after `total` clips, or never."""
    from train.data.dali import DaliFrames  # half a second that only readers of frames pay

    if total == 0:
        return
    data, size = cfg.data, cfg.train.micro_batch
    group = lru_cache(maxsize=data.prefetch + 2)(group)
    reader = ShardReader(dataset, store, NodeCache(Path(data.cache_dir) if data.cache_dir else cache_dir() / "shards"))

    def read(index: int, image: int) -> UInt8s:
        clip = group(index)[image // data.frames]
        return reader.jpeg(clip.sample, clip.frames(data)[image % data.frames])

    gpu = (device.index or 0) if data.decode_device == "mixed" else None
    decoder = DaliFrames(read, size * data.frames, gpu=gpu, threads=data.threads, prefetch=data.prefetch)
    try:
        index = 0
        while total is None or index * size < total:
            frames = decoder.next()
            clips = group(index) if total is None else group(index)[: total - index * size]
            frames_BTHWC = frames.view(size, data.frames, *frames.shape[1:])[: len(clips)]
            yield assemble(clips, frames_BTHWC, [reader.regions(clip.sample) for clip in clips], data, device)
            index += 1
    finally:
        decoder.close()
        reader.close()
