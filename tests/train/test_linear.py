"""A linear layer through oneDNN is a linear layer, and so are its first and second derivatives."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from train.linear import Linear, linear


def derivatives(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """An output, its gradients, and theirs."""
    first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(each.square().sum() for each in first), inputs)
    return [out, *first, *second]


def largest(values: Tensor) -> float:
    return float(values.detach().abs().max()) if values.numel() else 0.0


@given(
    lead=st.lists(st.integers(0, 4), max_size=3),
    inward=st.integers(1, 9),
    outward=st.integers(1, 9),
    biased=st.booleans(),
)
def test_it_is_what_torch_gives(lead: list[int], inward: int, outward: int, biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(*lead, inward), (outward, inward), *([(outward,)] if biased else [])]
    inputs = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    ours, theirs = (derivatives(apply(*inputs), inputs) for apply in (linear, F.linear))
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * largest(expected))


@pytest.mark.parametrize(
    ("dtype", "device"), [(torch.float64, "cpu"), (torch.bfloat16, "cpu"), (torch.float32, "meta")]
)
def test_other_types_and_devices_are_torchs(dtype: torch.dtype, device: str) -> None:
    layer = Linear(3, 2, dtype=dtype, device=device)
    assert "marlin" not in str(layer(torch.ones(4, 3, dtype=dtype, device=device)).grad_fn)
    assert "marlin" in str(Linear(3, 2)(torch.ones(4, 3)).grad_fn.next_functions)


def test_it_is_exported_as_torchs() -> None:
    program = torch.export.export(nn.Sequential(Linear(3, 2)), (torch.ones(4, 3),))
    assert "marlin" not in str(program.graph)


def test_it_can_be_compiled() -> None:
    inputs = (torch.ones(4, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True), None)
    torch.library.opcheck(torch.ops.marlin.linear.default, inputs)
