"""The network: blind to what is hidden, cubes in the order of a 3D convolution."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from train.cubes import patchify, unpatchify
from train.model import (
    Geometry,
    MaskedAutoencoder,
    build_critic,
    build_model,
    gather_cubes,
    sincos_table,
    split_indices,
)
from train.sizes import ViTSize

_SMALL = Geometry(frames=4, size=16, patch=8)


def tiny_model(geometry: Geometry = _SMALL, normalize: str = "none") -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(geometry, ViTSize(32, 2, 2), ViTSize(16, 1, 2), normalize=normalize).eval()


@pytest.fixture(autouse=True)
def unthreaded(one_thread: None) -> None:
    """Many small operations: threads would only wait for each other."""


def random_mask(clips: int, tokens: int, visible: int, seed: int = 0) -> Tensor:
    noise = torch.rand(clips, tokens, generator=torch.Generator().manual_seed(seed))
    return torch.zeros(clips, tokens, dtype=torch.bool).scatter_(1, noise.argsort(1)[:, :visible], True)


def test_pixels_are_normalised_in_front_of_the_encoder_alone() -> None:
    plain, normalising = tiny_model(), tiny_model(normalize="imagenet")
    normalising.load_state_dict(plain.state_dict())
    clips = torch.rand(2, 3, _SMALL.frames, _SMALL.size, _SMALL.size)
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    scaled = (clips - mean.view(3, 1, 1, 1)) / spread.view(3, 1, 1, 1)
    split = split_indices(random_mask(2, _SMALL.tokens, 3), 3)
    with torch.no_grad():
        torch.testing.assert_close(normalising.encode(clips), plain.encode(scaled))
        cubes = [patchify(pixels, _SMALL.tubelet, _SMALL.patch) for pixels in (clips, scaled)]
        torch.testing.assert_close(normalising(cubes[0], *split), plain(cubes[1], *split))
        assert not torch.allclose(normalising.encode(clips), plain.encode(clips), atol=0.1)


def test_hidden_cubes_never_reach_the_output() -> None:
    model, cubes = tiny_model(), torch.rand(2, _SMALL.tokens, _SMALL.cube)
    visible, hidden = split_indices(random_mask(2, _SMALL.tokens, 3), 3)
    changed = cubes.scatter(1, hidden[..., None].expand(-1, -1, _SMALL.cube), 7.0)
    with torch.no_grad():
        before = model(cubes, visible, hidden)
        assert torch.equal(model(changed, visible, hidden), before)
        seen = cubes.scatter(1, visible[..., None].expand(-1, -1, _SMALL.cube), 7.0)
        assert not torch.allclose(model(seen, visible, hidden), before)


def test_reconstructions_come_in_the_order_that_was_asked() -> None:
    model, cubes = tiny_model(), torch.rand(1, _SMALL.tokens, _SMALL.cube)
    visible, hidden = split_indices(random_mask(1, _SMALL.tokens, 2), 2)
    with torch.no_grad():
        straight, reverse = model(cubes, visible, hidden), model(cubes, visible, hidden.flip(1))
    torch.testing.assert_close(reverse.flip(1), straight, atol=1e-6, rtol=1e-5)


def test_recomputing_activations_changes_no_gradient() -> None:
    cubes = torch.rand(1, _SMALL.tokens, _SMALL.cube)
    visible, hidden = split_indices(random_mask(1, _SMALL.tokens, 2), 2)
    gradients = []
    for recompute in (False, True):
        model = tiny_model()
        model.encoder.recompute = model.decoder.recompute = recompute
        model(cubes, visible, hidden).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right)


@settings(max_examples=30)
@given(
    st.tuples(*(st.integers(1, 3) for _ in range(5))),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 2, 4]),
)
def test_unpatchify_undoes_patchify(counts: tuple[int, ...], tubelet: int, patch: int) -> None:
    b, c, t, h, w = counts
    clips = torch.rand(b, c, t * tubelet, h * patch, w * patch)
    cubes = patchify(clips, tubelet, patch)
    assert cubes.shape == (b, t * h * w, c * tubelet * patch**2)
    assert torch.equal(unpatchify(cubes, tubelet, patch, (c, t * tubelet, h * patch, w * patch)), clips)


def test_cubes_are_those_of_a_3d_convolution() -> None:
    clips, convolution = torch.rand(2, 3, 4, 12, 8), nn.Conv3d(3, 5, (2, 4, 4), stride=(2, 4, 4))
    expected = convolution(clips).flatten(2).transpose(1, 2)
    got = nn.functional.linear(patchify(clips, 2, 4), convolution.weight.flatten(1), convolution.bias)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("shape", [(3, 16, 16), (4, 15, 16), (4, 16, 20)])
def test_a_clip_that_the_cube_does_not_divide_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="can't be cut into cubes of 2×8×8"):
        patchify(torch.zeros(1, 3, *shape), 2, 8)


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 40), st.data())
def test_indices_split_the_tokens(clips: int, tokens: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(0, tokens))
    mask = random_mask(clips, tokens, keep, seed=tokens)
    visible, hidden = split_indices(mask, keep)
    assert mask.gather(1, visible).all()
    assert not mask.gather(1, hidden).any()
    for part in (visible, hidden):
        assert (part.diff(dim=1) > 0).all()
    assert torch.equal(torch.cat([visible, hidden], 1).sort(1)[0], torch.arange(tokens).expand(clips, -1))


def test_gathered_cubes_are_the_named_ones() -> None:
    cubes = torch.rand(2, 4, 3)
    got = gather_cubes(cubes, torch.tensor([[2, 0], [3, 1]]))
    assert torch.equal(got, torch.stack([cubes[0, [2, 0]], cubes[1, [3, 1]]]))


def test_positions_follow_the_formula() -> None:
    table = sincos_table(3, 4)
    one, two = torch.tensor([1.0, 0.01]), torch.tensor([2.0, 0.02])
    expected = torch.tensor(
        [[0.0, 1, 0, 1], *(torch.stack([x.sin(), x.cos()], 1).flatten().tolist() for x in (one, two))]
    )
    torch.testing.assert_close(table, expected)


@pytest.mark.parametrize(
    ("size", "encoder", "critic"),
    [("small", 21_879_936, 1_181_185), ("base", 86_227_200, 2_362_369), ("large", 303_860_736, 3_149_825)],
)
def test_sizes_are_the_published_ones(size: str, encoder: int, critic: int) -> None:
    with torch.device("meta"):
        model, scorer = build_model(size, Geometry()), build_critic(size, Geometry())
    counted = sum(p.numel() for module in (model.embed, model.encoder) for p in module.parameters())
    assert counted == encoder
    assert sum(p.numel() for p in scorer.parameters()) == critic
