"""Gradients of ZeRO 1 and 2 in fewer operations and less memory than DeepSpeed handles them.

DeepSpeed looks at every gradient by itself for infinities, eight operations each, and then takes the norm of each in
64 bits. Where a step is bound by the operations that it starts, as on an H200, that was half of them; on a CPU
copying a ViT-B's gradients to 64 bits took a tenth of a step. It then puts them into one tensor, and makes a second
one of that in 32 bits: in bf16 the first was a sixth of what a step needs at its peak (benchmarks/train/results).
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed


def make_lean(optimizer: Any) -> None:
    """Have an update left out when its norm is not finite, which it is only if all gradients are; join them in 32 bits.

    Args:
        optimizer: DeepSpeed's of ZeRO stage 1 or 2, that does not offload.
    """
    optimizer.has_overflow = lambda partition_gradients=True: False
    optimizer.get_grad_norm_direct = partial(_total_norm, optimizer.dp_process_group, optimizer.device)
    optimizer._get_preflattened_grad_partition = partial(_joined, optimizer)


def _total_norm(
    group: Any, device: torch.device, gradients: Iterable[Tensor], params: object, norm_type: int = 2
) -> Tensor:
    """Euclidean norm over the gradients that all ranks of a group hold: a 0-dimensional tensor."""
    mine = [gradient for gradient in gradients if not getattr(gradient, "_zero_padding", False)]
    square = torch.zeros((), device=device)
    if mine:  # a small network leaves a rank with padding only
        square += torch.stack(torch._foreach_norm(mine, norm_type, dtype=torch.float32)).square().sum()
    distributed.all_reduce(square, group=group)
    return square.sqrt()


def _joined(optimizer: Any, group: int) -> Tensor:
    """The gradients of a rank's part of a parameter group, in the type of its master copy: one dimension."""
    gradients = [gradient.flatten() for gradient in optimizer.averaged_gradients[group]]
    joined = torch.zeros_like(optimizer.single_partition_of_fp32_groups[group])
    lengths = [len(gradient) for gradient in gradients]
    torch._foreach_copy_(list(torch.split(joined[: sum(lengths)], lengths)), gradients)
    return joined
