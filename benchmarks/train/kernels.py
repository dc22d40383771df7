"""Products and attention of a training step on this machine's CPU, forward and backward, beside PyTorch's own.

    python -m benchmarks.train.kernels -o benchmarks/train/results

Sizes are those of ViT-B at the paper's clips, two at a time: the MLP of a decoder block over all cubes in fp32, and its
attention in bf16.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.results import publish
from benchmarks.turns import by_turns
from train.attention import attend_by_head
from train.linear import linear
from train.model import Geometry
from train.sizes import SIZES

CLIPS = 2


def trained(function: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], np.ndarray]:
    """Runs a function forward and backward; gives the gradient of its first input."""

    def run() -> np.ndarray:
        out = function(*inputs)
        gradients = torch.autograd.grad(out, inputs, torch.ones_like(out))
        return gradients[0].float().numpy()

    return run


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="turns of both sides (default: 20)")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    decoder, tokens = SIZES["base"].decoder, Geometry().tokens
    torch.manual_seed(0)
    shapes = (CLIPS * tokens, decoder.width), (4 * decoder.width, decoder.width), (4 * decoder.width,)
    layer = [torch.randn(shape, requires_grad=True) for shape in shapes]
    heads = CLIPS, tokens, decoder.heads, decoder.width // decoder.heads
    qkv = [torch.randn(heads).transpose(1, 2).bfloat16().requires_grad_() for _ in range(3)]
    pairs = {
        "linear, fp32": {"oneDNN": trained(linear, layer), "PyTorch": trained(F.linear, layer)},
        "attention, bf16": {
            "by head": trained(attend_by_head, qkv),
            "PyTorch": trained(F.scaled_dot_product_attention, qkv),
        },
    }
    found = {name: by_turns(sides, args.rounds) for name, sides in pairs.items()}
    figures = {f"{name}: {what}": value for name, each in found.items() for what, value in each.items()}
    figures["threads"] = torch.get_num_threads()
    publish("kernels", "python -m benchmarks.train.kernels", figures, args.output)


if __name__ == "__main__":
    main()
