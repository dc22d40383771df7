"""Attention maps of the encoder: how much each cube is looked at.

Shapes: B clips, C channels, T frames (tubelet frames of a map), H×W pixels (patches of a map), h heads, N cubes,
D width.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from eval.heat import unit_grid
from train.model import Block, MaskedAutoencoder

Kind = Literal["rollout", "last"]
_BRIGHTEST = 0.01  # trained transformers let a few cubes collect what nothing else is looked at for


def attention_weights(block: Block, x_BND: Tensor) -> Tensor:
    """What a block's attention multiplies its values with: softmax(q kᵀ / √d), queries in rows, (B, h, N, N).

    Args:
        block: a block of the encoder.
        x_BND: its input.
    """
    q, k, _ = block.attn.project(block.norm1(x_BND))
    return torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)


@torch.no_grad()
def block_attentions(model: MaskedAutoencoder, clips_BCTHW: Tensor) -> list[Tensor]:
    """The attention of each block of the encoder, averaged over its heads: (B, N, N) each."""
    found, x_BND = [], model.embed_clips(clips_BCTHW)
    for block in cast("Iterable[Block]", model.encoder.blocks):
        found.append(attention_weights(block, x_BND).mean(1))
        x_BND = block(x_BND)
    return found


def received(attention_BNN: Tensor) -> Tensor:
    """How much attention each cube gets in one block, the mean over all queries: (B, N), which adds up to 1."""
    return attention_BNN.mean(1)


def rollout(attentions: Sequence[Tensor]) -> Tensor:
    """How much of the mean token comes from each cube's input, followed through all blocks (Abnar & Zuidema, ACL 2020).

    A block hands on half of what it mixes and half of what passes by it: 0.5 A + 0.5 I, whose rows add up to 1 as those
    of A do. The mean token looks at all cubes of the last block alike; its row times the product of the blocks is found
    from the last block to the first without multiplying two matrices.

    Args:
        attentions: (B, N, N) of each block, from the first to the last.

    Returns:
        (B, N), which adds up to 1.
    """
    clips, cubes, _ = attentions[0].shape
    share_BN = attentions[0].new_full((clips, cubes), 1 / cubes)
    for attention_BNN in reversed(attentions):
        share_BN = 0.5 * share_BN + 0.5 * torch.einsum("bq,bqn->bn", share_BN, attention_BNN)
    return share_BN


def attention_maps(model: MaskedAutoencoder, clips_BCTHW: Tensor, kind: Kind = "rollout") -> Tensor:
    """Where the encoder looks, stretched over [0, 1] clip by clip, the brightest hundredth at 1: (B, T, H, W).

    Args:
        model: in evaluation mode.
        clips_BCTHW: clips in [0, 1], on the model's device. One goes through at a time: the weights of
            all blocks of a ViT-L, averaged over heads, are a quarter of a gigabyte.
        kind: through all blocks (`rollout`), or what cubes get in the last block (`received`).
    """
    shares = []
    for clip_CTHW in clips_BCTHW:
        attentions = block_attentions(model, clip_CTHW[None])
        shares.append(rollout(attentions) if kind == "rollout" else received(attentions[-1]))
    return unit_grid(torch.cat(shares), model.geometry, _BRIGHTEST)
