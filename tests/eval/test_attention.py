"""Attention maps: of the weights that the model uses, and rolled out as the formula says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import GRID, random_clips, tiny_model
from torch import Tensor

from eval.attention import attention_maps, attention_weights, block_attentions, received, rollout


def test_the_weights_are_those_of_the_model() -> None:
    """Values mixed by them are what the block's own attention gives."""
    model, x_BND = tiny_model(), torch.randn(2, GRID.tokens, 24, generator=torch.Generator().manual_seed(1))
    for block in model.encoder.blocks:
        normed_BND = block.norm1(x_BND)
        _, _, value = block.attn.project(normed_BND)
        weights = attention_weights(block, x_BND)
        assert weights.shape == (2, 3, GRID.tokens, GRID.tokens)
        mixed_BND = block.attn.proj((weights @ value).transpose(1, 2).flatten(2))
        torch.testing.assert_close(mixed_BND, block.attn(normed_BND), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, GRID.tokens))


def test_each_block_is_asked_about_what_it_is_given() -> None:
    model, clips, inputs = tiny_model(), random_clips(2), []
    for block in model.encoder.blocks:
        block.register_forward_hook(lambda _, given, __: inputs.append(given[0]))
    model.encode(clips)
    seen = inputs[:]
    for block, x_BND, attention in zip(model.encoder.blocks, seen, block_attentions(model, clips), strict=True):
        torch.testing.assert_close(attention, attention_weights(block, x_BND).mean(1))
        assert not attention.requires_grad


def stochastic(seed: int, clips: int, cubes: int) -> Tensor:
    noise = torch.randn(clips, cubes, cubes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (3 * noise).softmax(-1)


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.integers(0, 100))
def test_rollout_is_the_mean_row_of_the_product(clips: int, cubes: int, depth: int, seed: int) -> None:
    attentions = [stochastic(seed + block, clips, cubes) for block in range(depth)]
    product = torch.eye(cubes, dtype=torch.float64).expand(clips, -1, -1)
    for attention in attentions:
        product = (0.5 * attention + 0.5 * torch.eye(cubes, dtype=torch.float64)) @ product
    torch.testing.assert_close(rollout(attentions), product.mean(1))
    torch.testing.assert_close(rollout(attentions).sum(1), torch.ones(clips, dtype=torch.float64))


def test_rollout_and_last_by_hand() -> None:
    to_first = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    swap = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    # The mean token takes (1/2, 1/2) from the last block. Looking at the first cube turns that into (3/4, 1/4).
    assert rollout([swap, to_first]).tolist() == [[0.5, 0.5]]
    assert rollout([to_first, swap]).tolist() == [[0.75, 0.25]]
    assert rollout([to_first, to_first]).tolist() == [[0.875, 0.125]]
    assert received(to_first).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("kind", ["rollout", "last"])
def test_maps_of_clips_do_not_depend_on_each_other(kind: str) -> None:
    model, clips = tiny_model(), random_clips(3)
    maps = attention_maps(model, clips, kind)
    assert maps.shape == (3, GRID.tubelets, GRID.side, GRID.side)
    assert maps.amin((1, 2, 3)).tolist() == [0, 0, 0]
    assert maps.amax((1, 2, 3)).tolist() == [1, 1, 1]
    torch.testing.assert_close(attention_maps(model, clips[1:2], kind), maps[1:2], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(maps[0], maps[1], atol=0.05)


def test_rollout_and_the_last_block_are_different_maps() -> None:
    model, clips = tiny_model(), random_clips(1)
    last = received(block_attentions(model, clips)[-1]).view(2, 4, 4)
    high = last.quantile(0.99)
    expected = ((last - last.min()) / (high - last.min())).clamp_max(1)
    torch.testing.assert_close(attention_maps(model, clips, "last")[0], expected)
    assert not torch.allclose(attention_maps(model, clips), attention_maps(model, clips, "last"), atol=0.05)
