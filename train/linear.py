"""Linear layers in 32 bits on CPUs, through oneDNN.

PyTorch multiplies such matrices by MKL, which takes nearly twice as long on processors that are not Intel's
(benchmarks/train/kernels.py).

Shapes: M rows, K values in, N values out.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class Linear(nn.Linear):
    """`torch.nn.Linear`, by oneDNN where it can."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for the last dimension of ``x``."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, by oneDNN where it can: (..., K) to (..., N)."""
    exported = torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    takes = x.device.type == "cpu" and {x.dtype, weight_NK.dtype} == {torch.float32} and x.dim() > 1 and x.numel() > 0
    if not _ONEDNN or exported or not takes:
        return F.linear(x, weight_NK, bias_N)
    flat: Tensor = _linear(x.flatten(0, -2), weight_NK, bias_N)
    return flat.view(*x.shape[:-1], -1)


@torch.library.custom_op("marlin::linear", mutates_args=())
def _linear(x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x_MK, weight_NK, bias_N, "none", [], "none")
    return out


@_linear.register_fake
def _(x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    return x_MK.new_empty(x_MK.shape[0], weight_NK.shape[0])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    x_MK, weight_NK, _ = inputs
    ctx.save_for_backward(x_MK, weight_NK)


def _backward(ctx: Any, grad_MN: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """By the same product, so that gradients have gradients, too."""
    x_MK, weight_NK = ctx.saved_tensors
    of_x, of_weight, of_bias = ctx.needs_input_grad
    return (
        _linear(grad_MN, weight_NK.t(), None) if of_x else None,
        _linear(grad_MN.t(), x_MK.t(), None) if of_weight else None,
        grad_MN.sum(0) if of_bias else None,
    )


_linear.register_autograd(_backward, setup_context=_keep)
