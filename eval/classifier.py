"""A classifier of clips: an encoder and a head on it.

Shapes: B clips, N tokens of a clip, D width of a token, C outputs.
"""

from typing import cast

import torch
from torch import Tensor, nn

from eval.features import to_clips
from train.interop import is_encoder
from train.model import Block, MaskedAutoencoder


class AttentivePool(nn.Module):
    """One learned query that attends to all tokens, and a norm: (B, N, D) to (B, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.attend = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """What the query gathers."""
        found_B1D, _ = self.attend(self.query.expand(len(tokens_BND), -1, -1), tokens_BND, tokens_BND)
        out: Tensor = self.norm(found_B1D[:, 0])
        return out


class Classifier(nn.Module):
    """Clips to logits.

    Args:
        model: its encoder is used, and learns too unless `attentive`.
        outputs: C.
        attentive: freeze the encoder, and pool its tokens by attention instead of taking the norm of their mean.
    """

    def __init__(self, model: MaskedAutoencoder, outputs: int, *, attentive: bool) -> None:
        super().__init__()
        width = model.embed.out_features
        self.model = model
        self.pool = AttentivePool(width, cast(Block, model.encoder.blocks[0]).attn.heads) if attentive else None
        self.head = nn.Linear(width, outputs)
        for name, value in model.named_parameters():
            value.requires_grad = is_encoder(name) and not attentive

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        """Logits (B, C) of RGB bytes (B, T, H, W, 3) on the device of the weights."""
        clips_BCTHW = to_clips(frames_BTHWC)
        if self.pool is None:
            features_BD = self.model.encode(clips_BCTHW, pool=True)
        else:
            with torch.no_grad():
                tokens_BND = self.model.encode(clips_BCTHW)
            features_BD = self.pool(tokens_BND)
        logits: Tensor = self.head(features_BD)
        return logits.float()
