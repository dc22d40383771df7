"""Grad-CAM (Selvaraju et al., ICCV 2017) over the encoder's cubes: where a linear head finds what it answers with.

Shapes: B clips, C channels, T frames (tubelet frames of a map), H×W pixels (patches of a map), N cubes, D width.
"""

import torch
from torch import Tensor

from eval.heat import unit_grid
from train.model import MaskedAutoencoder


def grad_cam(model: MaskedAutoencoder, clips_BCTHW: Tensor, weight_D: Tensor, block: int = -1) -> Tensor:
    """Evidence for one output of a head on the pooled feature, cube by cube.

    With A the output of a block and y the head's output for a clip (its bias moves no gradient), a channel weighs as
    much as the mean of dy/dA over the cubes (equation 1), and a cube counts with the positive part of its weighted sum
    over the channels (equation 2).

    The default is the last block's output, the deepest layer that still is a grid of cubes. Networks with a class
    token need an earlier layer, because the gradient of what they answer reaches no other token there. Here the answer
    comes from the mean token, so every cube has the same gradient, and the map is that of CAM with the final norm
    linearised around this clip. Because the norm takes out the scale, the evidence of all cubes adds up to zero before
    its positive part is taken: bright is what speaks for the answer more than the clip as a whole.

    Args:
        model: in evaluation mode.
        clips_BCTHW: clips in [0, 1], on the model's device.
        weight_D: row of the head's weight (`eval.heads.Head`).
        block: whose output is looked at, counted as in a list.

    Returns:
        (B, T, H, W), stretched over [0, 1] clip by clip; zeros where nothing speaks for the answer.

    Raises:
        IndexError: no such block.
    """
    blocks = list(model.encoder.blocks)
    depth = range(1, len(blocks) + 1)[block]
    with torch.no_grad():
        activations_BND = model.embed_clips(clips_BCTHW)
        for each in blocks[:depth]:
            activations_BND = each(activations_BND)
    activations_BND.requires_grad_()
    with torch.enable_grad():
        mixed_BND = activations_BND
        for each in blocks[depth:]:
            mixed_BND = each(mixed_BND)
        answer_B = model.encoder.norm(mixed_BND.mean(1)) @ weight_D.to(mixed_BND)
        (gradient_BND,) = torch.autograd.grad(answer_B.sum(), activations_BND)
    weight_BD = gradient_BND.mean(1)
    evidence_BN = torch.einsum("bd,bnd->bn", weight_BD, activations_BND.detach())
    return unit_grid(evidence_BN.relu(), model.geometry)
