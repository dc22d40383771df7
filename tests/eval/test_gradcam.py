"""Grad-CAM against the derivative worked out by hand, against another way to it, and on evidence with a known place."""

import pytest
import torch
from tiny_models import GRID, random_clips, tiny_model
from torch import Tensor
from torch.nn import functional as F

from eval.gradcam import grad_cam
from eval.heat import over_frames, unit_grid
from train.model import Geometry, MaskedAutoencoder
from train.sizes import ViTSize

WEIGHT_D = torch.randn(24, generator=torch.Generator().manual_seed(5))


def last_tokens(clips_BCTHW: Tensor) -> Tensor:
    """What the last block gives, (B, N, D)."""
    model = tiny_model()
    with torch.no_grad():
        return model.encoder.mix(model.embed_clips(clips_BCTHW))


def test_the_map_of_the_last_block_follows_the_derivative_of_the_norm() -> None:
    clips, norm = random_clips(2), tiny_model().encoder.norm
    tokens_BND = last_tokens(clips)
    mean_BD = tokens_BND.mean(1)
    spread_B1 = (mean_BD.var(1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    normed_BD = (mean_BD - mean_BD.mean(1, keepdim=True)) / spread_B1
    pulled_D = (norm.weight * WEIGHT_D).detach()
    along_B1 = (normed_BD * pulled_D).mean(1, keepdim=True)
    weight_BD = (pulled_D - pulled_D.mean() - normed_BD * along_B1) / spread_B1 / GRID.tokens
    evidence_BN = (tokens_BND * weight_BD[:, None]).sum(2)
    torch.testing.assert_close(evidence_BN.sum(1), torch.zeros(2), atol=1e-4, rtol=0)
    positive_BN = evidence_BN.clamp_min(0)
    expected = (positive_BN / positive_BN.amax(1, keepdim=True)).view(2, 2, 4, 4)
    torch.testing.assert_close(grad_cam(tiny_model(), clips, WEIGHT_D), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("block", [0, 1, -1])
def test_any_block_is_seen_as_a_hook_sees_it(block: int, recompute: bool) -> None:
    model, clips, seen = tiny_model(), random_clips(2), []
    handle = model.encoder.blocks[block].register_forward_hook(lambda *call: seen.append(call[2]))
    answer_B = model.encode(clips, pool=True) @ WEIGHT_D
    handle.remove()
    [gradient_BND] = torch.autograd.grad(answer_B.sum(), seen)
    positive_BN = (gradient_BND.mean(1, keepdim=True) * seen[0]).sum(2).detach().clamp_min(0)
    model.encoder.recompute = recompute
    torch.testing.assert_close(grad_cam(model, clips, WEIGHT_D, block), unit_grid(positive_BN, GRID))


def test_opposite_answers_have_their_evidence_apart() -> None:
    clips = random_clips(2)
    for_it, against_it = (grad_cam(tiny_model(), clips, sign * WEIGHT_D) for sign in (1, -1))
    assert for_it.amax((1, 2, 3)).tolist() == against_it.amax((1, 2, 3)).tolist() == [1, 1]
    assert not (for_it * against_it).any()
    torch.testing.assert_close(grad_cam(tiny_model(), clips, 7 * WEIGHT_D), for_it)
    assert not grad_cam(tiny_model(), clips, 0 * WEIGHT_D).any()


def test_a_block_that_is_not_there_is_an_error() -> None:
    with pytest.raises(IndexError):
        grad_cam(tiny_model(), random_clips(1), WEIGHT_D, 3)


def marked_clips(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Grey noise, in every other clip with one red cube: the clips, which have it, and where among the cubes."""
    dice = torch.Generator().manual_seed(seed)
    clips, marked_B = 0.4 + 0.2 * random_clips(count, seed=seed), torch.arange(count) % 2 == 1
    place_B = torch.randint(GRID.tokens, (count,), generator=dice)
    for clip, place in zip(clips[1::2], place_B[1::2].tolist(), strict=True):
        time, row, column = 2 * (place // 16), 8 * (place // 4 % 4), 8 * (place % 4)
        clip[0, time : time + 2, row : row + 8, column : column + 8] = 1.0
    return clips, marked_B, place_B


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_evidence_lies_where_it_was_put(seed: int) -> None:
    """A head learns on frozen features whether a clip has the red cube; the map finds the cube in other clips."""
    torch.manual_seed(seed)
    model = MaskedAutoencoder(GRID, ViTSize(24, 2, 3), ViTSize(8, 1, 2)).eval()
    with torch.no_grad():
        model.embed.weight.mul_(4)  # or the positions, which are larger, would drown what is seen
    head = torch.nn.Linear(24, 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1)
    clips, marked_B, _ = marked_clips(512, seed)
    features_BD = model.encode(clips, pool=True).detach()
    for _ in range(300):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(head(features_BD)[:, 0], marked_B.float()).backward()
        optimizer.step()
    clips, marked_B, place_B = marked_clips(128, seed + 1000)
    found_B = head(model.encode(clips, pool=True))[:, 0] > 0
    assert (found_B == marked_B).float().mean() > 0.9
    chosen = found_B & marked_B
    maps_BN = grad_cam(model, clips[chosen], head.weight[0].detach()).flatten(1)
    assert (maps_BN.argmax(1) == place_B[chosen]).float().mean() > 0.95


def test_cubes_are_laid_out_as_the_model_cuts_them() -> None:
    geometry = Geometry(frames=4, size=32, patch=16)
    maps = unit_grid(torch.arange(16.0).view(2, 8), geometry)
    torch.testing.assert_close(maps[0], torch.arange(8.0).view(2, 2, 2) / 7)
    assert torch.equal(maps[0], maps[1])
    assert not unit_grid(torch.full((1, 8), 3.0), geometry).any()
    few = unit_grid(torch.tensor([[0.0, 1, 2, 3, 4, 5, 60, 700]]), geometry, brightest=2 / 7)
    torch.testing.assert_close(few.flatten(), torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1]))
    spread = over_frames(maps, geometry)
    assert spread.shape == (2, 4, 32, 32)
    assert torch.equal(spread[:, 0], spread[:, 1])
    # A corner is its patch's value; half way between the centres of two patches is half way between their values.
    torch.testing.assert_close(spread[0, 2, 0, 0], maps[0, 1, 0, 0])
    torch.testing.assert_close(spread[0, 0, 0, 15:17].mean(), maps[0, 0, 0].mean())
