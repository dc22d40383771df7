"""Masks: exact counts, the right patches, the same bits everywhere, the right distribution."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.errors import UsageError
from train.hashing import sample_hash, signed
from train.masking import (
    frame_count,
    make_mask,
    pool_regions,
    region_order,
    trim,
    unparsed_frames,
    visible_count,
)

STRATEGIES = ["fasking", "fasking-opposite", "tube", "frame", "random"]
ROUNDINGS = ["official", "tube"]
GOLDEN_SUMS = {"fasking": 220491, "fasking-opposite": 192070, "tube": 244456, "frame": 335812, "random": 231685}
ratios = st.floats(0.05, 0.95)


def hashes(count: int, epoch: int = 0) -> torch.Tensor:
    return torch.tensor([signed(sample_hash(0, epoch, f"clip-{index}")) for index in range(count)])


def face_grid(clips: int, tubelets: int = 8, side: int = 14, seed: int = 0) -> torch.Tensor:
    """Bitmasks (B, T, N) like a parsed face's: every patch touches a region, some touch two; one frame is unparsed."""
    dice = np.random.default_rng(seed)
    region = dice.choice(7, p=[0.45, 0.3, 0.03, 0.03, 0.04, 0.05, 0.1], size=(clips, tubelets, side * side))
    second = dice.choice(7, size=region.shape)
    masks = (1 << region) | np.where(dice.random(region.shape) < 0.3, 1 << second, 0)
    masks[0, 0] = 0
    return torch.from_numpy(masks.astype(np.uint8))


def reference(strategy: str, regions_TN: np.ndarray, ratio: float, dice: np.random.Generator) -> np.ndarray:
    """Fasking of one clip under official rounding, as it is described, with an ordinary generator."""
    tubelets, patches = regions_TN.shape
    keep, least = int(tubelets * patches * (1 - ratio)), math.ceil(round(patches * (1 - ratio), 9))
    parts = dice.permutation([2, 3, 4, 5, 6]).tolist()
    order = [*parts, 1, 0] if strategy == "fasking-opposite" else [0, 1, *parts]
    eligible = np.zeros(regions_TN.shape, bool)
    for frame in range(tubelets):
        if not regions_TN[frame].any():
            eligible[frame] = True
            continue
        for region in order:
            eligible[frame] |= (regions_TN[frame] >> region) & 1 == 1
            if eligible[frame].sum() >= least:
                break
    mask = np.zeros(regions_TN.size, bool)
    mask[dice.choice(np.flatnonzero(eligible), keep, replace=False)] = True
    return mask


@pytest.mark.parametrize(
    ("ratio", "rounding", "count"),
    [(0.9, "official", 156), (0.9, "tube", 160), (0.75, "official", 392), (0.75, "tube", 392), (0.5, "official", 784)],
)
def test_visible_counts_are_the_published_ones(ratio: float, rounding: str, count: int):
    assert visible_count(8, 196, ratio, rounding) == count


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(STRATEGIES), st.sampled_from(ROUNDINGS), ratios, st.integers(0, 2**32))
def test_every_row_has_exactly_the_count(strategy: str, rounding: str, ratio: float, seed: int):
    regions = face_grid(3, seed=seed)
    mask = make_mask(strategy, regions, hashes(3, seed), ratio=ratio, rounding=rounding)
    assert mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == [visible_count(8, 196, ratio, rounding)] * 3


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(STRATEGIES), st.sampled_from(ROUNDINGS), ratios, st.integers(0, 255), st.integers(0, 2**32))
def test_any_grid_gives_the_count(strategy: str, rounding: str, ratio: float, value: int, seed: int):
    # Grids that no parser makes: one bitmask everywhere, empty and undefined bits included.
    regions = torch.full((2, 4, 49), value, dtype=torch.uint8)
    regions[1] = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (4, 49), np.uint8))
    mask = make_mask(strategy, regions, hashes(2), ratio=ratio, rounding=rounding)
    assert mask.sum(dim=1).tolist() == [visible_count(4, 49, ratio, rounding)] * 2


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.sampled_from(ROUNDINGS), ratios, st.integers(0, 2**32))
def test_visible_patches_touch_a_region_up_to_the_stop(parts_first: bool, rounding: str, ratio: float, seed: int):
    regions, hash_B = face_grid(2, seed=seed), hashes(2, seed)
    strategy = "fasking-opposite" if parts_first else "fasking"
    mask = make_mask(strategy, regions, hash_B, ratio=ratio, rounding=rounding).view(regions.shape).numpy()
    orders = region_order(hash_B, parts_first=parts_first).tolist()
    for clip, order in enumerate(orders):
        for frame, visible in zip(regions[clip].numpy(), mask[clip], strict=True):
            touched, needed = 0, frame_count(196, ratio)
            for region in order:
                touched |= 1 << region
                if ((frame & touched) != 0).sum() >= needed:
                    break
            assert not frame.any() or ((frame[visible] & touched) != 0).all()


def test_orders_start_with_what_the_strategy_says_and_shuffle_the_parts():
    hash_B = hashes(2000)
    fasking, opposite = (region_order(hash_B, parts_first=first) for first in (False, True))
    assert fasking[:, :2].unique(dim=0).tolist() == [[0, 1]]
    assert opposite[:, 5:].unique(dim=0).tolist() == [[1, 0]]
    assert torch.equal(fasking[:, 2:], opposite[:, :5])
    permutations, counts = fasking[:, 2:].unique(dim=0, return_counts=True)
    assert len(permutations) == 120
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_unparsed_frames_are_wholly_eligible_and_counted():
    regions = torch.ones(64, 8, 196, dtype=torch.uint8)
    regions[:, :, 20:] = 2  # background in 20 patches of a frame: just enough, so skin is never shown
    regions[:, 3] = 0
    mask = make_mask("fasking", regions, hashes(64), ratio=0.9, rounding="official").view(64, 8, 196)
    shown = mask.any(dim=0)
    assert not shown[[0, 1, 2, 4, 5, 6, 7], 20:].any()
    assert shown[3, 20:].sum() > 170
    assert unparsed_frames(regions) == 64


def test_tube_is_constant_over_time_under_tube_rounding():
    mask = make_mask("tube", face_grid(4), hashes(4), ratio=0.9, rounding="tube").view(4, 8, 196)
    assert torch.equal(mask, mask[:, :1].expand_as(mask))
    assert not torch.equal(mask[0], mask[1])


def test_tube_is_trimmed_under_official_rounding():
    mask = make_mask("tube", face_grid(4), hashes(4), ratio=0.9, rounding="official").view(4, 8, 196)
    assert mask.any(dim=1).sum(dim=1).tolist() == [20] * 4
    assert mask.sum(dim=(1, 2)).tolist() == [156] * 4


@pytest.mark.parametrize(("ratio", "frames"), [(0.9, 1), (0.8, 2), (0.5, 4), (0.1, 8)])
def test_frame_uses_the_fewest_frames(ratio: float, frames: int):
    mask = make_mask("frame", face_grid(6), hashes(6), ratio=ratio, rounding="official").view(6, 8, 196)
    assert mask.any(dim=2).sum(dim=1).tolist() == [frames] * 6


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_bits_depend_on_the_clip_alone(strategy: str):
    regions, hash_B = face_grid(6), hashes(6)
    whole = make_mask(strategy, regions, hash_B, ratio=0.9, rounding="official")
    back = make_mask(strategy, regions.flip(0), hash_B.flip(0), ratio=0.9, rounding="official").flip(0)
    alone = [make_mask(strategy, regions[[i]], hash_B[[i]], ratio=0.9, rounding="official") for i in range(len(hash_B))]
    assert torch.equal(whole, back)
    assert torch.equal(whole, torch.cat(alone))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_never_change(strategy: str):
    mask = make_mask(strategy, face_grid(2), hashes(2), ratio=0.9, rounding="official")
    assert mask.nonzero()[:, 1].sum().item() == GOLDEN_SUMS[strategy]


def test_trim_is_uniform_over_the_eligible():
    eligible = torch.zeros(4000, 100, dtype=torch.bool)
    eligible[:, 10:70] = True
    mask = trim(eligible, hashes(4000), 12)
    assert not mask[:, :10].any()
    assert not mask[:, 70:].any()
    counts = mask[:, 10:70].sum(dim=0).numpy()
    # Drawn without replacement a cell varies by (1 - 12/60) of the multinomial that the test assumes.
    statistic = ((counts - 800) ** 2 / (800 * (1 - 12 / 60))).sum() * 59 / 60
    assert stats.chi2.sf(statistic, 59) > 1e-3
    assert stats.chi2.cdf(statistic, 59) > 1e-3


@pytest.mark.parametrize("strategy", ["fasking", "fasking-opposite"])
def test_distribution_is_the_reference_s(strategy: str):
    count, ratio = 3000, 0.8
    regions = face_grid(1, tubelets=2, side=6, seed=3)
    ours = make_mask(strategy, regions.expand(count, -1, -1), hashes(count), ratio=ratio, rounding="official")
    dice = np.random.default_rng(0)
    theirs = np.stack([reference(strategy, regions[0].numpy(), ratio, dice) for _ in range(count)])
    # Joint frequencies of all pairs of cubes (a cube with itself: its own frequency), as two-sample z-scores.
    joint, expected = ((mask.T @ mask) / count for mask in (ours.numpy().astype(float), theirs.astype(float)))
    pooled = (joint + expected) / 2
    rare = pooled * count < 10
    z = (joint - expected)[~rare] / np.sqrt(2 * (pooled * (1 - pooled))[~rare] / count)
    assert np.abs(z).max() < 5
    assert 0.5 < np.std(z) < 1.2


def test_pooling_keeps_every_region():
    grid = torch.randint(0, 128, (2, 3, 8, 8), dtype=torch.uint8)
    pooled = pool_regions(grid, 4)
    for y, x in [(0, 0), (1, 3), (3, 2)]:
        cells = grid[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].flatten(2).numpy()
        assert np.array_equal(pooled[:, :, y, x].numpy(), np.bitwise_or.reduce(cells, axis=2))
    assert torch.equal(pool_regions(grid, 8), grid)


def test_grids_that_do_not_pool_and_impossible_ratios_are_refused():
    with pytest.raises(UsageError, match=r"preprocess\.patch"):
        pool_regions(torch.zeros(1, 1, 14, 14, dtype=torch.uint8), 4)
    with pytest.raises(UsageError, match=r"data\.mask\.ratio"):
        visible_count(1, 4, 0.9, "official")
