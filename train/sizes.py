"""Widths and depths of the networks by name (MARLIN, section 4; decoder sizes as published)."""

from dataclasses import dataclass

CHANNELS = 3
TUBELET = 2


@dataclass(frozen=True)
class ViTSize:
    """Width, blocks and heads of a transformer."""

    width: int
    depth: int
    heads: int


@dataclass(frozen=True)
class ModelSize:
    """An encoder and its narrow decoder."""

    encoder: ViTSize
    decoder: ViTSize


SIZES = {
    # Not of the paper: the whole method at widths that two CPU cores can train, for the demo, for tests, and for
    # measuring learning at three sizes.
    "micro": ModelSize(ViTSize(96, 3, 3), ViTSize(48, 2, 3)),
    "tiny": ModelSize(ViTSize(192, 4, 3), ViTSize(96, 2, 3)),
    "mini": ModelSize(ViTSize(256, 8, 4), ViTSize(128, 2, 4)),
    "small": ModelSize(ViTSize(384, 12, 6), ViTSize(192, 4, 3)),
    "base": ModelSize(ViTSize(768, 12, 12), ViTSize(384, 4, 6)),
    "large": ModelSize(ViTSize(1024, 24, 16), ViTSize(512, 12, 8)),
}
