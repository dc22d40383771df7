"""Losses of MARLIN (section 3.3, equations 3 to 6) on the hidden cubes.

Shapes: B clips, M hidden cubes, P values of a cube.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.sizes import CHANNELS

_EPSILON = 1e-6  # of VideoMAE's per-cube normalisation


def normalize_cubes(cubes_BMP: Tensor) -> Tensor:
    """Each cube with zero mean and unit variance in every channel (VideoMAE's target)."""
    b, m, p = cubes_BMP.shape
    split = cubes_BMP.view(b, m, CHANNELS, p // CHANNELS)
    scaled = (split - split.mean(-1, keepdim=True)) / (split.var(-1, keepdim=True).sqrt() + _EPSILON)
    return scaled.view(b, m, p)


def denormalize_cubes(cubes_BMP: Tensor, truth_BMP: Tensor) -> Tensor:
    """Undo `normalize_cubes` with the mean and spread of the true cubes, as VideoMAE shows its pictures."""
    b, m, p = truth_BMP.shape
    truth = truth_BMP.view(b, m, CHANNELS, p // CHANNELS)
    spread = truth.var(-1, keepdim=True).sqrt() + _EPSILON
    return (cubes_BMP.view_as(truth) * spread + truth.mean(-1, keepdim=True)).view(b, m, p)


def reconstruction_loss(predicted_BMP: Tensor, target_BMP: Tensor) -> Tensor:
    """Mean squared error over the hidden cubes (equation 3)."""
    return F.mse_loss(_wide(predicted_BMP), _wide(target_BMP))


def critic_loss(real_scores_BM: Tensor, fake_scores_BM: Tensor) -> Tensor:
    """What the critic minimises (equation 4): its score of reconstructions minus that of real cubes."""
    return _wide(fake_scores_BM).mean() - _wide(real_scores_BM).mean()


def adversarial_loss(fake_scores_BM: Tensor) -> Tensor:
    """What the generator minimises beside the reconstruction (equation 5): minus the critic's score."""
    return -_wide(fake_scores_BM).mean()


def gradient_penalty(critic: nn.Module, real_BMP: Tensor, fake_BMP: Tensor, alpha_BM: Tensor) -> Tensor:
    """Mean of (‖∇D(x̂)‖ − 1)² on points x̂ between real and reconstructed cubes (WGAN-GP, equation 3).

    Args:
        critic: the bare module; second derivatives do not pass through an engine's wrapper.
        real_BMP: real cubes.
        fake_BMP: reconstructed cubes, without gradient.
        alpha_BM: where between the two each point lies, in [0, 1].
    """
    mixed_BMP = torch.lerp(fake_BMP, real_BMP, alpha_BM[..., None].to(real_BMP.dtype)).requires_grad_()
    slope_BMP = torch.autograd.grad(critic(mixed_BMP).sum(), mixed_BMP, create_graph=True)[0]
    penalty: Tensor = (_wide(slope_BMP).norm(dim=-1) - 1).square().mean()
    return penalty


def _wide(values: Tensor) -> Tensor:
    """At least 32 bits: halves would lose what they sum."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
