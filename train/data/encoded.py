"""Clips as they lie in their shards, read ahead of whoever decodes them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pipeline.config.schema import DataConfig
from pipeline.workers import Workers
from train.data.plan import Clip
from train.data.regions import tubelet_regions
from train.data.shards import ShardReader, UInt8s

T = TypeVar("T")


@dataclass(frozen=True)
class EncodedClip:
    """What decoding and masking need of a clip.

    Attributes:
        clip: which one.
        jpegs: its frames, intact JPEGs.
        regions_THW: uint8 region bitmasks of the first frame of each tubelet, mirrored where the clip is.
    """

    clip: Clip
    jpegs: Sequence[UInt8s]
    regions_THW: UInt8s


def read_clip(reader: ShardReader, data: DataConfig, clip: Clip) -> EncodedClip:
    """Read a clip.

    Raises:
        MarlinError: its shard is missing or damaged.
    """
    jpegs = reader.jpegs(clip.sample, clip.frames(data))
    return EncodedClip(clip, jpegs, tubelet_regions(clip, reader.regions(clip.sample), data))


def work_ahead(
    pool: Workers, work: Callable[[Clip], T], groups: Iterable[Sequence[Clip]], depth: int
) -> Iterator[list[T]]:
    """Groups of results in order, while the pool works on the clips of up to `depth` groups more."""
    waiting: deque[list[Future[T]]] = deque()
    for group in groups:
        waiting.append([pool.submit(partial(work, clip)) for clip in group])
        if len(waiting) > depth:
            yield [future.result() for future in waiting.popleft()]
    while waiting:
        yield [future.result() for future in waiting.popleft()]
