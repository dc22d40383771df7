"""The loader: micro batches of a rank, resumed exactly from the number of samples consumed."""

import math
from collections.abc import Generator, Iterable, Iterator, Sequence, Set
from functools import partial
from importlib import import_module
from itertools import count

import torch
from torch import Tensor

from pipeline.background import Background
from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.errors import UsageError
from pipeline.storage import ReadStore
from pipeline.workers import Workers, work_ahead
from train.data.access import ShardAccess, open_access
from train.data.batch import Batch, assemble
from train.data.encoded import EncodedClip, read_clip
from train.data.lookahead import look_ahead
from train.data.opencv import KeptFrames, decode_clip, opencv_clips
from train.data.order import check_nodes
from train.data.plan import Clip, TrainPlan, accumulation, centre_clips, first_step, rank_slice
from train.data.shards import ShardReader
from train.data.synthetic import synthetic_batches

CPU = torch.device("cpu")


class Loader(Iterator[Batch]):
    """Batches, and the threads and files behind them: close it, or use it as a context manager."""

    def __init__(self, batches: "Background[Batch] | Generator[Batch, None, None]") -> None:
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
    store: ReadStore | None,
    *,
    split: str,
    rank: int,
    world: int,
    nodes: int = 1,
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
        nodes: machines that they are spread over evenly; each reads shards of its own.
        consumed: samples of the run consumed before, by all ranks together: the whole state of the loader.
        device: where batches shall lie; frames travel there as bytes and become floats there.

    Raises:
        UsageError: batch, world, nodes, streams and dataset do not fit each other; the message names what does.
        MarlinError: while iterating: a shard is missing or damaged.
    """
    micros, first = accumulation(cfg, world), first_step(cfg, consumed)
    if cfg.data.source == "synthetic":
        return Loader(synthetic_batches(cfg, rank=rank, world=world, consumed=consumed, device=device))
    if dataset is None or store is None:
        raise UsageError("data.source=shards needs a dataset: set data.dataset")
    _check_decoder(cfg, device)
    plan = TrainPlan(cfg, dataset, split)
    check_nodes(plan.order.streams, nodes, world)
    groups = (plan.step(first + index // micros, rank_slice(cfg, rank, world, index % micros)) for index in count())
    ranks = world // nodes
    node = slice(rank // ranks * cfg.train.global_batch // nodes, (rank // ranks + 1) * cfg.train.global_batch // nodes)
    access = _access(cfg, dataset, store, share=plan.shards(node), tells=rank % ranks == 0)
    return _loader(cfg, dataset, access, groups, far=cfg.data.fetch_ahead * micros, depth=micros, device=device)


def fixed_clips(
    cfg: Config,
    dataset: Dataset,
    store: ReadStore,
    *,
    split: str,
    limit: int,
    rank: int = 0,
    world: int = 1,
    device: torch.device = CPU,
) -> Loader:
    """The same clips at every call: the centre clip of each sample of a split, for validation and evaluation.

    Ranks take the batches in turns. Every rank gets as many; where they do not divide, the last one comes again.

    Args:
        cfg: the run; `eval.seed` decides the hashes, `train.micro_batch` the size of a batch (the last may be smaller).
        dataset: what to read.
        store: where the dataset lies.
        split: "train" or "val".
        limit: at most this many clips, spread evenly over the split.
        rank: this process, of `world`.
        world: processes that share the clips.
        device: where batches shall lie.
    """
    _check_decoder(cfg, device)
    clips = centre_clips(cfg, dataset, split, limit)
    size = cfg.train.micro_batch
    count = math.ceil(len(clips) / size)
    own = (min(turn + rank, count - 1) * size for turn in range(0, count, world))
    groups = (clips[first : first + size] for first in own)
    return _loader(cfg, dataset, _access(cfg, dataset, store), groups, far=0, depth=1, device=device)


def fixed_batches(cfg: Config, dataset: Dataset, *, split: str, limit: int) -> int:
    """Batches of `fixed_clips`, over all ranks."""
    return math.ceil(len(centre_clips(cfg, dataset, split, limit)) / cfg.train.micro_batch)


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
    return TrainPlan(cfg, dataset, "train").epoch_clips()


def _check_decoder(cfg: Config, device: torch.device) -> None:
    if cfg.data.decode_device == "mixed" and device.type != "cuda":
        raise UsageError("data.decode_device=mixed decodes on a GPU and this process has none: set it to cpu")
    if cfg.data.decoder == "dali":
        import_module("train.data.dali")  # says what to do where there is no DALI


def _access(
    cfg: Config, dataset: Dataset, store: ReadStore, *, share: Set[str] = frozenset(), tells: bool = False
) -> ShardAccess:
    # Announced and not read yet: what is looked ahead at, and what waits for a reading thread.
    window = cfg.data.read_ahead + cfg.data.prefetch + 2
    return open_access(cfg.data, store, dataset.shards, share=share, window=window, tells=tells)


def _loader(
    cfg: Config,
    dataset: Dataset,
    access: ShardAccess,
    groups: Iterable[Sequence[Clip]],
    *,
    far: int,
    depth: int,
    device: torch.device,
) -> Loader:
    upcoming = look_ahead(groups, access, cfg.data, near=cfg.data.read_ahead, far=far)
    batches = _batches(cfg, ShardReader(dataset, access), upcoming, device)
    # The decoder has other batches ready, but must not keep the trainer, who takes `depth` at a time, waiting while it
    # asks for bytes.
    return Loader(Background(batches, depth=depth, stop=access.close))


def _batches(
    cfg: Config, reader: ShardReader, groups: Iterable[Sequence[Clip]], device: torch.device
) -> Generator[Batch, None, None]:
    """Read, decode and assemble groups of at most `train.micro_batch` clips."""
    if device.type == "cuda":
        torch.cuda.set_device(device)  # of the thread that runs this
    pool = Workers(cfg.data.threads, "loader")
    try:
        for group, clips_BCTHW in _decoded(cfg, reader, pool, groups, device):
            yield assemble(group, clips_BCTHW, device)
    finally:
        pool.close()


def _decoded(
    cfg: Config, reader: ShardReader, pool: Workers, groups: Iterable[Sequence[Clip]], device: torch.device
) -> Iterator[tuple[Sequence[EncodedClip], Tensor]]:
    data = cfg.data
    read = partial(read_clip, reader, data)
    if data.decoder == "opencv":
        work = KeptFrames(reader, data, read) if data.keep_gb else partial(decode_clip, read)
        return opencv_clips(work_ahead(pool, work, groups, data.prefetch), device)
    from train.data.dali import dali_clips  # half a second that only readers of frames pay

    return dali_clips(
        work_ahead(pool, read, groups, data.prefetch),
        cfg.train.micro_batch * data.frames,
        device=device,
        mixed=data.decode_device == "mixed",
        threads=data.threads,
        prefetch=data.prefetch,
    )
