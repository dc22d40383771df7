"""Attention head by head is attention."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from train.attention import attend, attend_by_head

Heads = tuple[Tensor, Tensor, Tensor]


def drawn(seed: int, clips: int, queries: int, keys: int, width: int) -> Heads:
    """Queries, keys and values of two heads as the model cuts them out of one tensor: not contiguous."""
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(clips, keys + queries, 3, 2, width, dtype=torch.float64, generator=generator)
    q, k, v = (part.transpose(1, 2).requires_grad_() for part in qkv.unbind(2))
    return q[:, :, keys:], k[:, :, :keys], v[:, :, :keys]


def with_gradients(mixed: Tensor, inputs: Heads) -> list[Tensor]:
    """An output, and the gradients of a weighted sum of it."""
    weights = torch.linspace(-1, 1, mixed.numel(), dtype=mixed.dtype).view(mixed.shape)
    return [mixed, *torch.autograd.grad((mixed * weights).sum(), inputs)]


@given(
    seed=st.integers(0, 99),
    clips=st.integers(1, 3),
    queries=st.integers(1, 6),
    keys=st.integers(1, 6),
    width=st.integers(1, 5),
)
def test_it_is_what_all_heads_at_once_give(seed: int, clips: int, queries: int, keys: int, width: int) -> None:
    inputs = drawn(seed, clips, queries, keys, width)
    ours = with_gradients(attend_by_head(*inputs), inputs)
    reference = with_gradients(F.scaled_dot_product_attention(*inputs), inputs)
    for found, expected in zip(ours, reference, strict=True):
        torch.testing.assert_close(found, expected)


def test_it_can_be_compiled_and_recomputed() -> None:
    inputs = tuple(part.detach().requires_grad_() for part in drawn(0, 2, 3, 4, 5))
    torch.library.opcheck(attend_by_head, inputs)
    assert torch.autograd.gradcheck(attend_by_head, inputs)


@pytest.mark.parametrize("by_head", [False, True])
def test_only_bf16_goes_head_by_head_and_only_where_that_is_faster(
    by_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.attention._BY_HEAD", by_head)
    q, k, v = (part.detach().bfloat16().requires_grad_() for part in drawn(0, 1, 3, 4, 5))
    assert ("attend_by_head" in str(attend(q, k, v).grad_fn)) is by_head
    assert "attend_by_head" not in str(attend(q.float(), k.float(), v.float()).grad_fn)
    whole = torch.compile(attend, fullgraph=True, backend="eager")
    torch.testing.assert_close(whole(q, k, v), attend(q, k, v))


def test_bf16_is_near_32_bits() -> None:
    exact = tuple(part.detach().float().requires_grad_() for part in drawn(3, 1, 200, 200, 64))
    rounded = tuple(part.detach().bfloat16().requires_grad_() for part in exact)
    expected = with_gradients(F.scaled_dot_product_attention(*exact), exact)
    for found, value in zip(with_gradients(attend_by_head(*rounded), rounded), expected, strict=True):
        assert (found.float() - value).norm() / value.norm() < 0.02
