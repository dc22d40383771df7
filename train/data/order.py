"""The order of a dataset's items: a pure function of (seed, epoch, dataset), whoever reads them.

An item is what an epoch shows once: a sample, or a source. Groups of items are dealt to canonical streams, the same
in every epoch, so that a node that owns a stream needs the shards of that stream only. Each epoch takes equally many
items of every stream, in an order of its own, and epochs follow each other without a gap: which item stands where in a
stream has a closed form. `train.data.mix` makes global batches of it.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from logging import getLogger
from math import gcd

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from train.hashing import DEAL, SHUFFLE, key_hash, sample_hashes, stream_array

_log = getLogger(__name__)

MAX_STREAMS = 32

Indices = NDArray[np.int64]

_NAMED = 3


def linked_groups(pairs: Iterable[tuple[str, str]]) -> list[int]:
    """Number the sets of units and sources that hang together.

    Args:
        pairs: (unit, source) of each sample. A unit may hold several sources and a long source several units;
            neither may be torn apart.

    Returns:
        The group of each pair: groups are numbered from 0 by first appearance.
    """
    pairs = list(pairs)
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for unit, source in pairs:
        parent[root(("unit", unit))] = root(("source", source))
    numbers: dict[tuple[str, str], int] = {}
    return [numbers.setdefault(root(("unit", unit)), len(numbers)) for unit, _ in pairs]


def stream_count(global_batch: int, groups: int, wanted: int | None) -> int:
    """Canonical streams: by default the largest power of two up to 32 that divides the global batch and fits.

    Raises:
        UsageError: `wanted` is larger than that, or does not divide the global batch; names the nearest that fits.
    """
    largest = 1
    while 2 * largest <= min(MAX_STREAMS, groups) and global_batch % (2 * largest) == 0:
        largest *= 2
    if wanted is None:
        return largest
    if wanted > largest or global_batch % wanted:
        nearest = max(count for count in range(1, min(wanted, largest) + 1) if global_batch % count == 0)
        raise UsageError(
            f"data.streams={wanted} does not fit: train.global_batch={global_batch} and {groups} separate sources "
            f"allow at most {largest}, and it must divide the batch; the nearest is {nearest}"
        )
    return wanted


def check_nodes(streams: int, nodes: int, world: int) -> None:
    """Make sure that each node has equally many ranks and owns whole streams, so that it reads only its own shards.

    Raises:
        UsageError: it would not; names the nearest counts that fit.
    """
    most = gcd(streams, world)
    if most % nodes == 0:
        return
    fit = [count for count in range(1, most + 1) if most % count == 0]
    below, above = [count for count in fit if count < nodes][-1:], [count for count in fit if count > nodes][:1]
    raise UsageError(
        f"{nodes} nodes do not fit: each must own whole streams, of {streams}, and as many of the {world} ranks as "
        f"every other: the nearest that fit are {' or '.join(map(str, below + above))}"
    )


def deal(weights: Sequence[int], streams: int) -> list[list[int]]:
    """Deal groups to streams so that the streams are about equally heavy; groups of each stream in dataset order."""
    heap = [(0, stream) for stream in range(streams)]
    dealt: list[list[int]] = [[] for _ in range(streams)]
    for group in sorted(range(len(weights)), key=lambda group: (-weights[group], group)):
        weight, stream = heapq.heappop(heap)
        dealt[stream].append(group)
        heapq.heappush(heap, (weight + weights[group], stream))
    return [sorted(groups) for groups in dealt]


class Order:
    """The endless order of a dataset's items.

    Attributes:
        items: number of items.
        streams: number of canonical streams.
        length: items that an epoch takes of each stream: as many as the shortest stream has.
    """

    def __init__(
        self, keys: Sequence[str], groups: Sequence[int], *, seed: int, global_batch: int, streams: int | None
    ) -> None:
        """Deal the items.

        Args:
            keys: unique name of each item.
            groups: group of each item, see `linked_groups`; the items of one stay in one stream.
            seed: `train.seed`.
            global_batch: items of a global batch.
            streams: canonical streams, None for the default.

        Raises:
            UsageError: `streams` does not fit.
        """
        members: dict[int, list[int]] = defaultdict(list)
        for item, group in enumerate(groups):
            members[group].append(item)
        self._keys = tuple(keys)
        self.items = len(keys)
        self.streams = stream_count(global_batch, len(members), streams)
        self._seed = seed
        self._share = global_batch // self.streams
        self._hashes = np.array([key_hash(key) for key in keys], dtype=np.uint64)
        names = list(members)
        dealt = deal([len(members[name]) for name in names], self.streams)
        self._dealt = [self._base(np.concatenate([members[names[group]] for group in own])) for own in dealt]
        self.length = min(len(own) for own in self._dealt)
        self._epochs: dict[int, Indices] = {}

    def at(self, stream: int, position: int) -> tuple[int, int]:
        """The item at a position of a stream, counted through all epochs, and its epoch."""
        epoch, place = divmod(position, self.length)
        return int(self.epoch(epoch)[stream, place]), epoch

    def dealt(self, stream: int) -> list[int]:
        """All items of a stream."""
        items: list[int] = self._dealt[stream].tolist()
        return items

    def epoch(self, epoch: int) -> Indices:
        """Items (streams, length) of an epoch in their order."""
        if epoch not in self._epochs:
            # One batch may reach over several tiny epochs; older ones are not read again.
            oldest = epoch - 1 - self._share // self.length
            self._epochs = {known: items for known, items in self._epochs.items() if known >= oldest}
            self._epochs[epoch] = np.stack([self._shuffled(own, epoch) for own in self._dealt])
            self._tell(epoch, self.left_out(epoch))
        return self._epochs[epoch]

    def left_out(self, epoch: int) -> list[str]:
        """Keys of the items that an epoch does not show, because their stream is longer than the shortest one."""
        absent = np.ones(len(self._keys), dtype=bool)
        absent[self.epoch(epoch)] = False
        return [self._keys[item] for item in np.flatnonzero(absent)]

    def _tell(self, epoch: int, left_out: Sequence[str]) -> None:
        if not left_out:
            return
        rest = len(left_out) - _NAMED
        named = ", ".join(left_out[:_NAMED]) + (f" and {rest} more (--verbose names all)" if rest > 0 else "")
        _log.info(
            "epoch %d leaves out %d of %d, to keep streams equal: %s", epoch, len(left_out), len(self._keys), named
        )
        if rest > 0:
            _log.debug("epoch %d leaves out: %s", epoch, ", ".join(left_out))

    def _base(self, items: Indices) -> Indices:
        hashes = stream_array(sample_hashes(self._seed, 0, self._hashes[items]), DEAL)
        return items[np.argsort(hashes, kind="stable")]

    def _shuffled(self, items: Indices, epoch: int) -> Indices:
        # The window moves on around the stream from epoch to epoch, so that every item is left out equally often.
        window = items[(epoch * self.length + np.arange(self.length)) % len(items)]
        hashes = stream_array(sample_hashes(self._seed, epoch, self._hashes[window]), SHUFFLE)
        return window[np.argsort(hashes, kind="stable")]
