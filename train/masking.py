"""Which cubes of a clip the encoder sees. True means visible; a whole batch at once, on the device of its regions.

Shapes: B clips, T tubelet frames, N patches of a frame, R regions in an order. Masks are (B, T*N), frame by frame.
"""

import math

import torch
from torch import Tensor

from pipeline.config.schema import MaskConfig
from pipeline.errors import UsageError
from train.hashing import PATTERN, REGION_ORDER, TRIM, noise_tensor

REGIONS = 7
_PARTS = 2  # the first of the five facial parts; background and skin come before them


def frame_count(patches: int, ratio: float) -> int:
    """Visible patches of one tubelet frame: the visible share rounded up, computed as VideoMAE does."""
    return patches - int(ratio * patches)


def visible_count(tubelets: int, patches: int, ratio: float, rounding: str) -> int:
    """Visible cubes of a clip.

    Args:
        tubelets: tubelet frames of a clip.
        patches: patches of a frame.
        ratio: hidden share.
        rounding: "official" rounds once for the clip (156 of 1568 at 0.9, as the MARLIN code does), "tube" rounds
            each frame (20 of 196, so 160, as VideoMAE does).

    Raises:
        UsageError: no cube, or every cube, would be visible.
    """
    total = tubelets * patches
    keep = tubelets * frame_count(patches, ratio) if rounding == "tube" else int(total * (1 - ratio))
    if not 0 < keep < total:
        raise UsageError(f"data.mask.ratio={ratio} leaves {keep} of {total} cubes visible: choose another ratio")
    return keep


def mask_clips(mask: MaskConfig, regions_BTHW: Tensor, hash_B: Tensor, side: int) -> Tensor:
    """`make_mask` as a run is configured, for region grids as they are stored.

    Args:
        mask: the run's `data.mask`.
        regions_BTHW: region bitmasks of the first frame of each tubelet, on the dataset's patch grid.
        hash_B: int64 hash of each clip.
        side: patches in a row of the model's grid.

    Raises:
        UsageError: the dataset's grid does not divide into the model's.
    """
    regions_BTN = pool_regions(regions_BTHW, side).flatten(2)
    return make_mask(mask.strategy, regions_BTN, hash_B, ratio=mask.ratio, rounding=mask.rounding)


def make_mask(strategy: str, regions_BTN: Tensor, hash_B: Tensor, *, ratio: float, rounding: str) -> Tensor:
    """Visible-cube masks of a batch.

    Args:
        strategy: a value of `data.mask.strategy`.
        regions_BTN: region bitmask of each patch, uint8, bit r set where region r touches it.
        hash_B: int64 hash of each clip; with the regions it decides every bit of its mask.
        ratio: hidden share, 0.05 to 0.95.
        rounding: see `visible_count`.

    Returns:
        Boolean (B, T*N) on the regions' device, exactly `visible_count` True in each row.
    """
    _, tubelets, patches = regions_BTN.shape
    keep = visible_count(tubelets, patches, ratio, rounding)
    # At least this many of a frame must be eligible, or a clip could have fewer than `keep` eligible cubes.
    least = max(frame_count(patches, ratio), math.ceil(keep / tubelets))
    if strategy in ("fasking", "fasking-opposite"):
        order_BR = region_order(hash_B, parts_first=strategy == "fasking-opposite")
        eligible_BTN = eligible_by_region(regions_BTN, order_BR, least)
    elif strategy == "tube":
        eligible_BTN = _one_pattern(regions_BTN, hash_B, least)
    elif strategy == "frame":
        eligible_BTN = _whole_frames(regions_BTN, hash_B, math.ceil(keep / patches))
    elif strategy == "random":
        eligible_BTN = torch.ones_like(regions_BTN, dtype=torch.bool)
    else:
        raise UsageError(f"data.mask.strategy={strategy!r} is not known")
    return trim(eligible_BTN.flatten(1), hash_B, keep)


def region_order(hash_B: Tensor, *, parts_first: bool) -> Tensor:
    """The order (B, R) in which regions of each clip become visible; the five facial parts are shuffled by the hash.

    Args:
        hash_B: int64 hash of each clip.
        parts_first: skin and background come last (fasking-opposite) instead of background and skin first (fasking).
    """
    # Counted on the device: copying a list there would wait for it.
    shuffled_BR = _PARTS + _scores(hash_B, REGION_ORDER, REGIONS - _PARTS).argsort(dim=1)
    rest = torch.arange(_PARTS, device=hash_B.device)  # background, skin
    rest_BR = (rest.flip(0) if parts_first else rest).expand(len(hash_B), -1)
    return torch.cat([shuffled_BR, rest_BR] if parts_first else [rest_BR, shuffled_BR], dim=1)


def eligible_by_region(regions_BTN: Tensor, order_BR: Tensor, least: int) -> Tensor:
    """Patches that may be visible: regions are added to each frame in order until `least` patches touch one of them.

    A patch counts with every region that touches it. A frame whose regions run out, an unparsed one whose grid is all
    zero above all, is wholly eligible.

    Returns:
        Boolean (B, T, N), at least `least` True in each frame.
    """
    # A table of all 256 bitmasks a clip turns seven passes over the patches into one look-up.
    bits = torch.arange(256, device=regions_BTN.device)
    place_BR = order_BR.argsort(dim=1)
    table_BV = torch.full((len(order_BR), 256), REGIONS, device=bits.device, dtype=place_BR.dtype)
    for region in range(REGIONS):
        touched_V = (bits >> region) & 1 == 1
        table_BV = torch.where(touched_V, torch.minimum(table_BV, place_BR[:, region, None]), table_BV)
    place_BTN = table_BV.to(torch.uint8).gather(1, regions_BTN.flatten(1).long()).view_as(regions_BTN)
    # The `least`-th smallest place is the first place at which `least` patches have become eligible.
    stop_BT1 = place_BTN.kthvalue(least, dim=2, keepdim=True).values
    return place_BTN <= stop_BT1


def trim(eligible_BM: Tensor, hash_B: Tensor, keep: int) -> Tensor:
    """Keep exactly `keep` of the eligible cubes of each clip, uniformly at random by its hash.

    Every row must have at least `keep` eligible cubes.
    """
    scores_BM = _scores(hash_B, TRIM, eligible_BM.shape[1])
    scores_BM = scores_BM.masked_fill(~eligible_BM, torch.iinfo(torch.int64).max)
    return _smallest(scores_BM, keep)


def pool_regions(regions_BTHW: Tensor, side: int) -> Tensor:
    """Region bitmasks on a coarser grid (B, T, side, side): a cell carries every region that touches it.

    Raises:
        UsageError: the stored grid is not a multiple of `side`.
    """
    stored = regions_BTHW.shape[-1]
    if stored % side:
        raise UsageError(
            f"the dataset's region grid of {stored} does not divide into the model's {side}: set preprocess.patch"
        )
    step = stored // side
    pooled = torch.zeros_like(regions_BTHW[..., ::step, ::step])
    for row in range(step):
        for column in range(step):
            pooled |= regions_BTHW[..., row::step, column::step]
    return pooled


def unparsed_frames(regions_BTHW: Tensor) -> Tensor:
    """How many tubelet frames of the batch have an all-zero grid: a 0-d int64 tensor on its device."""
    return (regions_BTHW == 0).flatten(2).all(dim=2).sum()


def _one_pattern(regions_BTN: Tensor, hash_B: Tensor, count: int) -> Tensor:
    pattern_BN = _smallest(_scores(hash_B, PATTERN, regions_BTN.shape[2]), count)
    return pattern_BN[:, None].expand(regions_BTN.shape)


def _whole_frames(regions_BTN: Tensor, hash_B: Tensor, count: int) -> Tensor:
    frames_BT = _smallest(_scores(hash_B, PATTERN, regions_BTN.shape[1]), count)
    return frames_BT[:, :, None].expand(regions_BTN.shape)


def _scores(hash_B: Tensor, purpose: int, count: int) -> Tensor:
    # Non-negative 62-bit noise whose low bits are the position: no two are equal, so every sort agrees everywhere.
    counter_N = torch.arange(count, device=hash_B.device)
    low = (1 << max(count - 1, 1).bit_length()) - 1
    return (noise_tensor(hash_B, purpose, counter_N) & ((1 << 62) - 1) & ~low) | counter_N


def _smallest(scores_BN: Tensor, count: int) -> Tensor:
    return scores_BN <= scores_BN.kthvalue(count, dim=1, keepdim=True).values
