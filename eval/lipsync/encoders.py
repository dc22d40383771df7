"""Face encoders of the generator: Wav2Lip's convolutions, or the vision transformer of a masked autoencoder.

Both give the features of each frame at seven scales, the pyramid that the decoder's skip connections take.

Shapes: B clips, T frames, S×S pixels, G = B × T frames of all clips, C channels, N cubes, D width of a token.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from eval.lipsync.blocks import ConvBlock, residuals
from train.interop import is_encoder
from train.model import MaskedAutoencoder

STEPS = 32
"""Sides of faces are multiples of it: their features are halved five times."""

WIDTHS = (1, 2, 4, 8, 16, 32, 32)
"""Channels at each scale, from whole faces to a single vector, in channels of the first layer."""

_DEPTHS = (0, 2, 3, 2, 2, 1)
_GIVEN = 6  # channels of a frame: the face without its lower half, and the face at another moment


class FaceEncoder(Protocol):
    """What the generator asks of a face encoder."""

    def __call__(self, faces_BT6SS: Tensor) -> list[Tensor]:
        """Features (G, C, S / 2^level, S / 2^level) of levels 0 to 5, and (G, C, 1, 1)."""
        ...


class ConvFaces(nn.Module):
    """Wav2Lip's face encoder: each frame by itself (section 3.3 of the paper)."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_stage(level, size, channels) for level in range(len(WIDTHS)))

    def forward(self, faces_BT6SS: Tensor) -> list[Tensor]:
        """The pyramid."""
        return _through(self.stages, faces_BT6SS.flatten(0, 1))


class VideoFaces(nn.Module):
    """The encoder of a masked autoencoder over all frames of a clip, in the place of the convolutions.

    It sees the faces without their lower halves and the faces of the other moment as two clips. Its tokens are the
    features at the scale of its patches; convolutions give the finer ones (of the pixels) and the coarser ones.

    Args:
        model: its encoder is used and learns; its geometry is that of the clips.
        channels: as those of the convolutions.
    """

    def __init__(self, model: MaskedAutoencoder, channels: int) -> None:
        super().__init__()
        geometry = model.geometry
        self.model = model
        for name, value in model.named_parameters():
            value.requires_grad = is_encoder(name)
        self.level = (geometry.patch - 1).bit_length()
        width = channels * WIDTHS[self.level]
        self.fine = nn.ModuleList(_stage(level, geometry.size, channels) for level in range(self.level))
        self.project = nn.Linear(2 * model.embed.out_features, geometry.tubelet * width)
        coarse = range(self.level + 1, len(WIDTHS))
        self.coarse = nn.ModuleList(_stage(level, geometry.size, channels) for level in coarse)

    def forward(self, faces_BT6SS: Tensor) -> list[Tensor]:
        """The pyramid."""
        geometry, clips = self.model.geometry, len(faces_BT6SS)
        fine = _through(self.fine, faces_BT6SS.flatten(0, 1))
        both = torch.cat(faces_BT6SS.chunk(2, dim=2)).transpose(1, 2)
        tokens_BND = torch.cat(self.model.encode(both).chunk(2), dim=-1)
        cubes = (clips, geometry.tubelets, geometry.side, geometry.side, geometry.tubelet, -1)
        features = self.project(tokens_BND).view(cubes).permute(0, 1, 4, 5, 2, 3).flatten(0, 2)
        return [*fine, features, *_through(self.coarse, features)]


def _stage(level: int, size: int, channels: int) -> nn.Sequential:
    width = channels * WIDTHS[level]
    if level == 0:
        return nn.Sequential(ConvBlock(_GIVEN, width, 7, 1, 3))
    given = channels * WIDTHS[level - 1]
    if level == len(WIDTHS) - 1:
        return nn.Sequential(ConvBlock(given, width, size // STEPS), ConvBlock(width, width, 1))
    return nn.Sequential(ConvBlock(given, width, 3, 2, 1), *residuals(width, _DEPTHS[level]))


def _through(stages: nn.ModuleList, x: Tensor) -> list[Tensor]:
    found = []
    for stage in stages:
        x = stage(x)
        found.append(x)
    return found
