"""A frozen encoder for a CPU: linear layers through oneDNN with weights packed once, GELU in the layer before it.

PyTorch multiplies fp32 matrices by MKL, which packs the weights at every call and is slow on processors that are not
Intel's (benchmarks/eval/results).

Shapes: B clips, N tokens, D width.
"""

from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from train.attention import attend
from train.linear import Linear
from train.model import Attention, Block, MaskedAutoencoder


class PackedLinear(nn.Module):
    """A linear layer with a packed copy of its weight, and the function that follows: `none` or `gelu`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, follows: str = "none") -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        self._bias = None if bias is None else bias.detach()
        self._follows = follows

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, self._follows, [], "none")
        return out


class PackedAttention(nn.Module):
    """What `Attention` does, for all tokens."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
        self.heads = attention.heads
        self.qkv = PackedLinear(attention.qkv.weight, bias)
        self.proj = PackedLinear(attention.proj.weight, attention.proj.bias)

    def forward(self, x_BND: Tensor, first: int = 0) -> Tensor:
        """Every token from `first` on, mixed with all."""
        b, n, d = x_BND.shape
        q, k, v = self.qkv(x_BND).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = attend(q[:, :, first:], k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(b, n - first, d))
        return out


def packed(model: MaskedAutoencoder) -> MaskedAutoencoder:
    """A copy of a model whose encoder is packed, to be used without gradients; the weights stay as they are now."""
    copy = deepcopy(model).requires_grad_(False)
    copy.embed = cast(Linear, PackedLinear(copy.embed.weight, copy.embed.bias))
    for block in cast(list[Block], copy.encoder.blocks):
        widen, narrow = cast(nn.Linear, block.mlp[0]), cast(nn.Linear, block.mlp[2])
        block.attn = cast(Attention, PackedAttention(block.attn))
        block.mlp = nn.Sequential(
            PackedLinear(widen.weight, widen.bias, "gelu"), PackedLinear(narrow.weight, narrow.bias)
        )
    return copy


def can_pack(model: nn.Module) -> bool:
    """Whether `packed` has something to win: on a CPU, and a torch whose oneDNN takes this type there."""
    one = next(model.parameters())
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not there or one.device.type != "cpu":
        return False
    if one.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return one.dtype == torch.float32
