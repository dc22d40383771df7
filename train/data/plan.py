"""Which clip is read when: the order of items made concrete as samples, start frames and flips."""

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from logging import getLogger

from pipeline.config.schema import Config, DataConfig
from pipeline.dataset import Dataset, Sample
from pipeline.errors import MarlinError, UsageError
from train.data.datasets import weighted_parts
from train.data.mix import BatchOrder
from train.data.order import Order, linked_groups, stream_count
from train.hashing import DRAW, FLIP, START, sample_hash, stream

_log = getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """A clip of a sample: `hash` (64 bits, unsigned) decides its mask, `epoch` is the pass it belongs to."""

    sample: Sample
    start: int
    flip: bool
    hash: int
    epoch: int

    def frames(self, data: DataConfig) -> range:
        """The frames of the sample that the clip shows."""
        return range(self.start, self.start + data.frames * data.stride, data.stride)


def valid_starts(sample: Sample, data: DataConfig) -> int:
    """How many start frames a clip of the sample can have; 0 if the sample is shorter than a clip."""
    return max(0, sample.frames - (data.frames - 1) * data.stride)


@dataclass(frozen=True)
class _Items:
    """What an epoch of a dataset shows once: a name, the samples to draw from, and the group that stays together."""

    names: list[str]
    samples: list[list[Sample]]
    groups: list[int]


class TrainPlan:
    """The global batches of a training run.

    Attributes:
        order: the order of batches behind it.
    """

    def __init__(self, cfg: Config, dataset: Dataset, split: str) -> None:
        """Plan over the samples of `split` that are long enough for a clip.

        Raises:
            UsageError: no sample is, or batch and streams do not fit the dataset.
        """
        self._data = cfg.data
        self._seed = cfg.train.seed
        parts = weighted_parts(dataset)
        found = [_items(cfg.data, part, split) for part, _ in parts]
        self._items = [item for items in found for item in zip(items.names, items.samples, strict=True)]
        self._starts = [list(accumulate(valid_starts(sample, cfg.data) for sample in own)) for _, own in self._items]
        batch = cfg.train.global_batch
        streams = stream_count(batch, min(len(set(items.groups)) for items in found), cfg.data.streams)
        self._orders = [
            Order(items.names, items.groups, seed=cfg.train.seed, global_batch=batch, streams=streams)
            for items in found
        ]
        self.order = BatchOrder(self._orders, [weight for _, weight in parts], batch)

    def epoch_clips(self) -> int:
        """Clips of an epoch.

        Raises:
            UsageError: several datasets are mixed; each has epochs of its own.
        """
        if len(self._orders) > 1:
            raise UsageError("a data.mix has no epochs of its own: set train.steps")
        return self._orders[0].streams * self._orders[0].length

    def step(self, step: int, part: slice = slice(None)) -> list[Clip]:
        """The clips of global batch `step`, counted from 0, or a part of them."""
        return [self._clip(item, epoch) for item, epoch in self.order.batch(step, part)]

    def shards(self, part: slice) -> set[str]:
        """The shards that a part of every global batch is read from, over all epochs."""
        return {sample.shard for item in self.order.items(part) for sample in self._items[item][1]}

    def _clip(self, item: int, epoch: int) -> Clip:
        name, samples = self._items[item]
        # Samples weigh as many valid starts as they have: the draw is uniform over the starts of the whole source.
        starts = self._starts[item]
        drawn = stream(sample_hash(self._seed, epoch, name), DRAW) % starts[-1]
        sample = samples[bisect_right(starts, drawn)]
        hashed = sample_hash(self._seed, epoch, sample.key)
        start = stream(hashed, START) % valid_starts(sample, self._data)
        flip = self._data.flip and bool(stream(hashed, FLIP) >> 63)
        return Clip(sample, start, flip, hashed, epoch)


def centre_clips(cfg: Config, dataset: Dataset, split: str, limit: int) -> list[Clip]:
    """The centre clip of each sample of a split, in dataset order; `limit` of them, spread evenly, if it has more."""
    samples = [sample for sample in dataset.of_split(split) if valid_starts(sample, cfg.data)]
    count = min(limit, len(samples))
    chosen = [samples[index * len(samples) // count] for index in range(count)]
    return [centre_clip(cfg, sample) for sample in chosen]


def centre_clip(cfg: Config, sample: Sample) -> Clip:
    """The clip in the middle of a sample that is long enough, not mirrored; `eval.seed` decides its mask."""
    start = (valid_starts(sample, cfg.data) - 1) // 2
    return Clip(sample, start, False, sample_hash(cfg.eval.seed, 0, sample.key), 0)


def rank_slice(cfg: Config, rank: int, world: int, micro: int) -> slice:
    """The part of a global batch that is micro batch `micro` (counted from 0) of a rank."""
    first = rank * cfg.train.global_batch // world + micro * cfg.train.micro_batch
    return slice(first, first + cfg.train.micro_batch)


def accumulation(cfg: Config, world: int) -> int:
    """Micro batches of an optimiser step on each rank.

    Raises:
        UsageError: the global batch does not divide into micro batches of `world` ranks; names the nearest that does.
    """
    total, micro = cfg.train.global_batch, cfg.train.micro_batch
    each = micro * world
    if total % each == 0:
        return total // each
    below = total // each * each
    nearest = f"{below} or {below + each}" if below else f"{each}"
    fixes = [f"train.global_batch={nearest}"]
    if total % world == 0:
        fixes.append(f"train.micro_batch={_nearest_divisor(total // world, micro)}")
    if total % micro == 0:
        fixes.append(f"{_nearest_divisor(total // micro, world)} ranks")
    raise UsageError(
        f"train.global_batch={total} does not divide into train.micro_batch={micro} on {world} ranks: "
        f"the nearest that fit are {', or '.join(fixes)}"
    )


def first_step(cfg: Config, consumed: int) -> int:
    """The step at which to go on after `consumed` samples.

    Raises:
        MarlinError: that is not at the end of a step, because the global batch was another one.
    """
    step, rest = divmod(consumed, cfg.train.global_batch)
    if rest:
        raise MarlinError(
            f"{consumed} consumed samples are no whole number of steps of train.global_batch={cfg.train.global_batch}: "
            "resume with the global batch that the run had"
        )
    return step


def _nearest_divisor(total: int, wanted: int) -> int:
    divisors = [count for count in range(1, total + 1) if total % count == 0]
    return min(divisors, key=lambda count: (abs(count - wanted), count))


def _items(data: DataConfig, dataset: Dataset, split: str) -> _Items:
    samples = [sample for sample in dataset.of_split(split) if valid_starts(sample, data)]
    if not samples:
        raise UsageError(
            f"{dataset.url} has no clips of split {split}: is data.frames × data.stride longer than its samples?"
        )
    _tell_of_short(dataset, split, len(samples))
    groups = linked_groups((sample.unit, sample.source) for sample in samples)
    members: dict[str, list[Sample]] = defaultdict(list)
    group_of: dict[str, int] = {}
    for sample, group in zip(samples, groups, strict=True):
        name = sample.source if data.epoch_unit == "source" else sample.key
        members[name].append(sample)
        group_of[name] = group
    return _Items(list(members), list(members.values()), list(group_of.values()))


def _tell_of_short(dataset: Dataset, split: str, used: int) -> None:
    short = len(dataset.of_split(split)) - used
    if short:
        _log.info("%d samples of split %s of %s are shorter than a clip and left out", short, split, dataset.url)
