"""What the networks of Wav2Lip are made of.

Shapes: B pictures, C channels, H×W pixels.
"""

from collections.abc import Sequence

from torch import Tensor, nn

Pair = int | tuple[int, int]


class ConvBlock(nn.Module):
    """Convolution, batch norm and ReLU; a residual one adds what it was given before the ReLU. Names as published."""

    def __init__(
        self, given: int, out: int, kernel: int, stride: Pair = 1, padding: Pair = 0, *, residual: bool = False
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(given, out, kernel, stride, padding), nn.BatchNorm2d(out))
        self.act = nn.ReLU()
        self.residual = residual

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The block's output."""
        found_BCHW: Tensor = self.conv_block(x_BCHW)
        out: Tensor = self.act(found_BCHW + x_BCHW if self.residual else found_BCHW)
        return out


class UpBlock(nn.Module):
    """Transposed convolution, batch norm and ReLU: twice as many pixels a side, or `first` of a single one."""

    def __init__(self, given: int, out: int, *, first: int = 0) -> None:
        super().__init__()
        wider = nn.ConvTranspose2d(given, out, first) if first else nn.ConvTranspose2d(given, out, 3, 2, 1, 1)
        self.layers = nn.Sequential(wider, nn.BatchNorm2d(out), nn.ReLU())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The block's output."""
        out: Tensor = self.layers(x_BCHW)
        return out


def residuals(channels: int, count: int) -> list[nn.Module]:
    """Residual blocks of 3×3 pixels."""
    return [ConvBlock(channels, channels, 3, 1, 1, residual=True) for _ in range(count)]


def sound_encoder(channels: int, depths: Sequence[int]) -> nn.Sequential:
    """Windows of a spectrogram (B, 1, 80, 16) to (B, 16 × channels, 1, 1).

    Args:
        channels: of the first layer.
        depths: residual blocks after each of the first four layers.
    """
    widths = [channels * factor for factor in (1, 2, 4, 8)]
    strides: tuple[Pair, ...] = (1, (3, 1), 3, (3, 2))
    layers: list[nn.Module] = []
    given = 1
    for width, stride, depth in zip(widths, strides, depths, strict=True):
        layers += [ConvBlock(given, width, 3, stride, 1), *residuals(width, depth)]
        given = width
    layers += [ConvBlock(given, 2 * given, 3), ConvBlock(2 * given, 2 * given, 1)]
    return nn.Sequential(*layers)
