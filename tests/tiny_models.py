"""Networks small enough to be checked against formulas."""

import torch

from train.model import Geometry, MaskedAutoencoder
from train.sizes import ViTSize

GRID = Geometry(frames=4, size=32, patch=8)
"""2 tubelet frames of 4×4 patches."""


def tiny_model(geometry: Geometry = GRID, seed: int = 0, depth: int = 3) -> MaskedAutoencoder:
    """Random weights; biases and norms too, which a fresh network leaves at zero and one."""
    torch.manual_seed(seed)
    model = MaskedAutoencoder(geometry, ViTSize(24, depth, 3), ViTSize(8, 1, 2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def random_clips(count: int, geometry: Geometry = GRID, seed: int = 0) -> torch.Tensor:
    """Clips of noise (B, C, T, H, W) in [0, 1]."""
    dice = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, geometry.frames, geometry.size, geometry.size, generator=dice)
