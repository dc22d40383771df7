"""Scaled dot-product attention in bf16 on CPUs, one head at a time.

PyTorch's fused attention multiplies bf16 in 32 bits unless the processor has AMX. By heads, oneDNN multiplies in bf16,
and the one matrix of scores that all heads use in turn stays in the cache: half the time or less for clips of 1,568
cubes (benchmarks/train/kernels.py).

Shapes: B clips, H heads, Q queries and K keys of a head, d its width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_BY_HEAD: bool = (
    torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    and not torch.cpu._is_amx_tile_supported()
)
"""Whether this machine multiplies in bf16, and its fused attention does not."""


def attend(q_BHQd: Tensor, k_BHKd: Tensor, v_BHKd: Tensor) -> Tensor:
    """Scaled dot-product attention, however it is fastest here: (B, H, Q, d)."""
    if _BY_HEAD and q_BHQd.dtype == torch.bfloat16 and q_BHQd.device.type == "cpu":
        by_head: Tensor = attend_by_head(q_BHQd, k_BHKd, v_BHKd)
        return by_head
    return F.scaled_dot_product_attention(q_BHQd, k_BHKd, v_BHKd)


@torch.library.custom_op("marlin::attend_by_head", mutates_args=())
def attend_by_head(q_BHQd: Tensor, k_BHKd: Tensor, v_BHKd: Tensor) -> Tensor:
    """Scaled dot-product attention, head after head: (B, H, Q, d)."""
    scores_QK = q_BHQd.new_empty(q_BHQd.shape[2], k_BHKd.shape[2])
    mixed_BHQd = _like(q_BHQd)
    q_BHQd, k_BHKd, v_BHKd = q_BHQd.contiguous(), k_BHKd.contiguous(), v_BHKd.contiguous()
    for at in _heads(q_BHQd):
        _weights(q_BHQd[at], k_BHKd[at], scores_QK)
        torch.mm(scores_QK, v_BHKd[at], out=mixed_BHQd[at])
    return mixed_BHQd


@torch.library.custom_op("marlin::attend_by_head_backward", mutates_args=())
def _attend_by_head_backward(
    grad_BHQd: Tensor, q_BHQd: Tensor, k_BHKd: Tensor, v_BHKd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `attend_by_head` in its queries, keys and values; the weights are made again, not kept."""
    weights_QK = q_BHQd.new_empty(q_BHQd.shape[2], k_BHKd.shape[2])
    back_QK = torch.empty_like(weights_QK)
    out_q, out_k, out_v = _like(q_BHQd), _like(k_BHKd), _like(v_BHKd)
    grad_BHQd, q_BHQd, k_BHKd, v_BHKd = (each.contiguous() for each in (grad_BHQd, q_BHQd, k_BHKd, v_BHKd))
    for at in _heads(q_BHQd):
        scaled_Qd = _weights(q_BHQd[at], k_BHKd[at], weights_QK)
        torch.mm(weights_QK.t(), grad_BHQd[at], out=out_v[at])
        torch.mm(grad_BHQd[at], v_BHKd[at].t(), out=back_QK)
        torch._softmax_backward_data(back_QK, weights_QK, -1, back_QK.dtype, grad_input=back_QK)
        torch.mm(back_QK, k_BHKd[at], out=out_q[at])
        torch.mm(back_QK.t(), scaled_Qd, out=out_k[at])
    out_q *= q_BHQd.shape[-1] ** -0.5
    return out_q, out_k, out_v


def _weights(q_Qd: Tensor, k_Kd: Tensor, out_QK: Tensor) -> Tensor:
    """Write the softmax of the scores of one head; returns the scaled queries."""
    scaled_Qd: Tensor = q_Qd * q_Qd.shape[-1] ** -0.5
    torch.mm(scaled_Qd, k_Kd.t(), out=out_QK)
    torch.softmax(out_QK, -1, out=out_QK)
    return scaled_Qd


def _heads(q_BHQd: Tensor) -> list[tuple[int, int]]:
    return [(clip, head) for clip in range(q_BHQd.shape[0]) for head in range(q_BHQd.shape[1])]


def _like(x_BHNd: Tensor) -> Tensor:
    return torch.empty_like(x_BHNd, memory_format=torch.contiguous_format)


@attend_by_head.register_fake
def _(q_BHQd: Tensor, k_BHKd: Tensor, v_BHKd: Tensor) -> Tensor:
    return _like(q_BHQd)


@_attend_by_head_backward.register_fake
def _(grad_BHQd: Tensor, q_BHQd: Tensor, k_BHKd: Tensor, v_BHKd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _like(q_BHQd), _like(k_BHKd), _like(v_BHKd)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_BHQd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor, Tensor] = _attend_by_head_backward(grad_BHQd, *ctx.saved_tensors)
    return gradients


attend_by_head.register_autograd(_backward, setup_context=_keep)
