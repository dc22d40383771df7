"""Clips as they lie in their shards, read ahead of whoever decodes them."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.schema import DataConfig
from train.data.plan import Clip
from train.data.regions import tubelet_regions
from train.data.shards import ShardReader, UInt8s


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
