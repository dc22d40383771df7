"""Masks: exact counts, the right patches, the same bits everywhere, the right distribution."""

import math

import numpy as np
import pytest
import torch
from drawn import Drawn, MakeConfig
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.config.schema import MaskConfig
from pipeline.errors import UsageError
from train.data.loader import open_loader
from train.export import geometry_of
from train.hashing import sample_hash, signed
from train.masking import (
    frame_count,
    make_mask,
    mask_clips,
    pool_regions,
    region_order,
    trim,
    unparsed_frames,
    visible_count,
)
from train.step import Masker

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


def reference(
    strategy: str, regions_TN: np.ndarray, ratio: float, rounding: str, dice: np.random.Generator
) -> np.ndarray:
    """One clip's mask as it is described, with an ordinary generator and plain loops."""
    tubelets, patches = regions_TN.shape
    share = math.ceil(round(patches * (1 - ratio), 9))
    keep = tubelets * share if rounding == "tube" else int(tubelets * patches * (1 - ratio))
    eligible = np.zeros(regions_TN.shape, bool)
    if strategy == "random":
        eligible[:] = True
    elif strategy == "frame":
        eligible[dice.choice(tubelets, math.ceil(keep / patches), replace=False)] = True
    elif strategy == "tube":
        eligible[:, dice.choice(patches, share, replace=False)] = True
    else:
        parts = dice.permutation([2, 3, 4, 5, 6]).tolist()
        order = [*parts, 1, 0] if strategy == "fasking-opposite" else [0, 1, *parts]
        for frame in range(tubelets):
            eligible[frame] = first_regions(regions_TN[frame], order, share)
    mask = np.zeros(regions_TN.size, bool)
    mask[dice.choice(np.flatnonzero(eligible), keep, replace=False)] = True
    return mask


def first_regions(frame: np.ndarray, order: list[int], share: int) -> np.ndarray:
    """Patches that touch the first regions of an order, as many regions as it takes to have `share` patches."""
    eligible = np.zeros(len(frame), bool)
    for region in order:
        eligible |= (frame >> region) & 1 == 1
        if eligible.sum() >= share:
            return eligible
    return np.ones(len(frame), bool)


@pytest.mark.parametrize(
    ("ratio", "rounding", "count"),
    [(0.9, "official", 156), (0.9, "tube", 160), (0.75, "official", 392), (0.75, "tube", 392), (0.5, "official", 784)],
)
def test_visible_counts_are_the_published_ones(ratio: float, rounding: str, count: int):
    assert visible_count(8, 196, ratio, rounding) == count


@settings(max_examples=60)
@given(st.sampled_from(STRATEGIES), st.sampled_from(ROUNDINGS), ratios, st.integers(0, 2**32))
def test_every_row_has_exactly_the_count(strategy: str, rounding: str, ratio: float, seed: int):
    regions = face_grid(3, seed=seed)
    mask = make_mask(strategy, regions, hashes(3, seed), ratio=ratio, rounding=rounding)
    assert mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == [visible_count(8, 196, ratio, rounding)] * 3


@settings(max_examples=150)
@given(
    st.sampled_from(STRATEGIES),
    st.sampled_from(ROUNDINGS),
    ratios,
    st.tuples(st.integers(1, 12), st.sampled_from([2, 3, 4, 7, 10, 14, 16, 20])),
    st.integers(0, 2**32),
)
def test_any_grid_gives_the_count(strategy: str, rounding: str, ratio: float, shape: tuple[int, int], seed: int):
    # Grids that no parser makes: one bitmask everywhere, empty and undefined bits included.
    tubelets, patches = shape[0], shape[1] ** 2
    try:
        count = visible_count(tubelets, patches, ratio, rounding)
    except UsageError:
        assume(False)
    regions = torch.full((2, tubelets, patches), seed % 256, dtype=torch.uint8)
    regions[1] = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (tubelets, patches), np.uint8))
    mask = make_mask(strategy, regions, hashes(2), ratio=ratio, rounding=rounding)
    assert mask.sum(dim=1).tolist() == [count] * 2


@settings(max_examples=60)
@given(st.booleans(), st.sampled_from(ROUNDINGS), ratios, st.integers(0, 2**32))
def test_visible_patches_touch_a_region_up_to_the_stop(parts_first: bool, rounding: str, ratio: float, seed: int):
    regions, hash_B = face_grid(2, seed=seed), hashes(2, seed)
    strategy = "fasking-opposite" if parts_first else "fasking"
    mask = make_mask(strategy, regions, hash_B, ratio=ratio, rounding=rounding).view(regions.shape).numpy()
    orders = region_order(hash_B, parts_first=parts_first).tolist()
    for clip, order in enumerate(orders):
        for frame, visible in zip(regions[clip].numpy(), mask[clip], strict=True):
            assert first_regions(frame, order, frame_count(196, ratio))[visible].all()


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
    regions[:, 4, 195] = 0  # one patch without a region makes no unparsed frame
    mask = make_mask("fasking", regions, hashes(64), ratio=0.9, rounding="official").view(64, 8, 196)
    shown = mask.any(dim=0)
    assert not shown[[0, 1, 2, 4, 5, 6, 7], 20:].any()
    assert shown[3, 20:].sum() > 170
    assert unparsed_frames(regions) == 64


@settings(max_examples=60)
@given(ratios, st.integers(0, 2**32))
def test_tube_is_constant_over_time_under_tube_rounding(ratio: float, seed: int):
    mask = make_mask("tube", face_grid(4), hashes(4, seed), ratio=ratio, rounding="tube").view(4, 8, 196)
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


@settings(max_examples=60)
@given(ratios, st.sampled_from(ROUNDINGS), st.integers(0, 2**32))
def test_frame_shows_whole_frames_but_for_the_trim(ratio: float, rounding: str, seed: int):
    count = visible_count(8, 196, ratio, rounding)
    mask = make_mask("frame", face_grid(3), hashes(3, seed), ratio=ratio, rounding=rounding).view(3, 8, 196)
    assert mask.any(dim=2).sum(dim=1).tolist() == [math.ceil(count / 196)] * 3


@settings(max_examples=60)
@given(st.sampled_from(STRATEGIES), st.sampled_from(ROUNDINGS), st.permutations(range(6)), st.integers(0, 2**32))
def test_bits_depend_on_the_clip_alone(strategy: str, rounding: str, places: list[int], seed: int):
    regions, hash_B = face_grid(6, seed=seed), hashes(6, seed)
    whole = make_mask(strategy, regions, hash_B, ratio=0.9, rounding=rounding)
    moved = make_mask(strategy, regions[places], hash_B[places], ratio=0.9, rounding=rounding)
    alone = [make_mask(strategy, regions[[i]], hash_B[[i]], ratio=0.9, rounding=rounding) for i in range(len(hash_B))]
    assert torch.equal(whole[places], moved)
    assert torch.equal(whole, torch.cat(alone))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="not run: masks on a GPU need one")
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_bits_are_the_same_on_a_gpu(strategy: str, rounding: str):
    mask, regions, hash_B = MaskConfig(strategy=strategy, rounding=rounding), face_grid(64), hashes(64)
    grids = regions.view(64, 8, 14, 14)
    for side in (14, 7):
        here = mask_clips(mask, grids, hash_B, side)
        there = mask_clips(mask, grids.cuda(), hash_B.cuda(), side)
        assert there.is_cuda
        assert torch.equal(there.cpu(), here)


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


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_distribution_is_the_reference_s(strategy: str, rounding: str):
    count, ratio = 3000, 0.8
    regions = face_grid(1, tubelets=3, side=6, seed=3)
    ours = make_mask(strategy, regions.expand(count, -1, -1), hashes(count), ratio=ratio, rounding=rounding)
    dice = np.random.default_rng(0)
    theirs = np.stack([reference(strategy, regions[0].numpy(), ratio, rounding, dice) for _ in range(count)])
    # Joint frequencies of all pairs of cubes (a cube with itself: its own frequency), as two-sample z-scores.
    joint, expected = ((mask.T @ mask) / count for mask in (ours.numpy().astype(float), theirs.astype(float)))
    assert np.array_equal(np.diag(joint) == 0, np.diag(expected) == 0)
    pooled = (joint + expected) / 2
    z = joint - expected
    likely = (pooled * count >= 10) & (pooled < 1)
    z = z[likely] / np.sqrt(2 * (pooled * (1 - pooled))[likely] / count)
    assert np.abs(z).max() < 5
    # Whole tubes and frames come or go together: their pairs say the same again and again.
    assert strategy in ("tube", "frame") or 0.5 < np.std(z) < 1.2


def test_pooling_keeps_every_region():
    grid = torch.randint(0, 128, (2, 3, 8, 8), dtype=torch.uint8)
    pooled = pool_regions(grid, 4)
    for y, x in [(0, 0), (1, 3), (3, 2)]:
        cells = grid[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].flatten(2).numpy()
        assert np.array_equal(pooled[:, :, y, x].numpy(), np.bitwise_or.reduce(cells, axis=2))
    assert torch.equal(pool_regions(grid, 8), grid)


def test_a_model_of_coarser_patches_pools_the_dataset_s_grid(make_config: MakeConfig, drawn: Drawn):
    cfg = make_config(train={"micro_batch": 4})
    cfg = cfg.model_copy(update={"model": cfg.model.model_copy(update={"patch": 16})})
    masker = Masker(cfg, geometry_of(cfg), torch.device("cpu"))
    with open_loader(cfg, drawn.dataset, drawn.store, split="train", rank=0, world=1) as loader:
        batch = next(loader)
    regions = pool_regions(batch.regions_BTHW, 2).flatten(2)
    expected = make_mask("fasking", regions, batch.hash_B, ratio=0.9, rounding="official")
    masked = masker(batch)
    assert masked.visible_BV.tolist() == [row.nonzero().flatten().tolist() for row in expected]
    assert masked.cubes_BNP.shape == (4, 8 * 2 * 2, 3 * 2 * 16 * 16)


def test_grids_that_do_not_pool_and_impossible_ratios_are_refused():
    with pytest.raises(UsageError, match=r"preprocess\.patch"):
        pool_regions(torch.zeros(1, 1, 14, 14, dtype=torch.uint8), 4)
    with pytest.raises(UsageError, match=r"data\.mask\.ratio"):
        visible_count(1, 4, 0.9, "official")
