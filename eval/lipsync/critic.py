"""The optional visual critic of Wav2Lip: whether the lower half of a face is real (section 3.4 of the paper).

Shapes: G faces, S×S pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.lipsync.encoders import STEPS

_LAYERS = ((1, 7, 1, 3), (2, 5, (1, 2), 2), (4, 5, 2, 2), (8, 5, 2, 2), (16, 3, 2, 1), (16, 3, 2, 1))
_SLOPE = 0.01


class VisualCritic(nn.Module):
    """Convolutions without norms over the lower half of single faces.

    Args:
        size: S.
        channels: of the first layer; 32 as published.
    """

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        given = 3
        for factor, kernel, stride, padding in _LAYERS:
            out = channels * factor
            layers += [nn.Conv2d(given, out, kernel, stride, padding), nn.LeakyReLU(_SLOPE)]
            given = out
        layers += [nn.Conv2d(given, given, size // STEPS), nn.LeakyReLU(_SLOPE), nn.Conv2d(given, 1, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, faces_GT3SS: Tensor) -> Tensor:
        """Logits of being real, one for each face."""
        faces = faces_GT3SS.flatten(0, 1)
        out: Tensor = self.layers(faces[..., faces.shape[-2] // 2 :, :])
        return out.flatten()


def fooling_loss(critic: VisualCritic, drawn_BT3SS: Tensor) -> Tensor:
    """How far drawn faces are from being taken for real."""
    return _loss(critic(drawn_BT3SS), real=True)


def critic_loss(critic: VisualCritic, drawn_BT3SS: Tensor, real_BT3SS: Tensor) -> Tensor:
    """How far the critic is from telling drawn faces from real ones."""
    return (_loss(critic(drawn_BT3SS.detach()), real=False) + _loss(critic(real_BT3SS), real=True)) / 2


def _loss(logits_G: Tensor, *, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits_G, torch.full_like(logits_G, float(real)))
