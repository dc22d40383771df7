"""Reconstruction metrics against cases worked out by hand."""

import pytest
import torch

from eval.tasks.reconstruction import METHODS, ErrorSums, Reconstruction, guess_baselines, psnr
from train.model import Geometry

# One clip of 2 tubelets × 1×2 patches, cubes of 2×1×1 pixels: 4 cubes of 6 values; cube n holds the value n/10.
CUBES = (torch.arange(4) / 10.0)[None, :, None].expand(1, 4, 6).contiguous()
VISIBLE, HIDDEN = torch.tensor([[0, 3]]), torch.tensor([[1, 2]])
REGIONS = torch.tensor([[1, 2, 6, 4]], dtype=torch.uint8)  # cube 2 touches regions 1 and 2


def guesses(checkpoint: float) -> Reconstruction:
    baselines = {"mean": torch.zeros(1, 2, 6), "nearest": torch.full((1, 2, 6), 0.1)}
    made = {"checkpoint": torch.full((1, 2, 6), checkpoint), **baselines}
    return Reconstruction(("k",), CUBES, torch.tensor([[True, False, False, True]]), HIDDEN, REGIONS, made)


def test_errors_by_region_and_in_all() -> None:
    sums = ErrorSums.empty(("zero", "one", "two"))
    sums.add(guesses(0.1))
    table = sums.table()
    assert list(table) == ["one", "two", "all"]  # nothing hidden touches region zero
    assert table["one"] == pytest.approx({"cubes": 2, "checkpoint": 0.005, "mean": 0.025, "nearest": 0.005})
    assert table["two"] == pytest.approx({"cubes": 1, "checkpoint": 0.01, "mean": 0.04, "nearest": 0.01})
    assert table["all"] == table["one"]


def test_clips_add_up_by_cubes() -> None:
    sums = ErrorSums.empty(("zero", "one", "two"))
    sums.add(guesses(0.1))
    sums.add(guesses(0.2))
    assert sums.table()["all"]["cubes"] == 4
    assert sums.table()["all"]["checkpoint"] == pytest.approx((0.0 + 0.01 + 0.01 + 0.0) / 4)


def test_baselines_are_the_mean_and_the_nearest_visible_cube() -> None:
    found = guess_baselines(CUBES, VISIBLE, HIDDEN, side=2)
    assert found["mean"] == pytest.approx(torch.full((1, 2, 6), 0.15))
    # side 2: four cubes are one frame of 2×2; cube 1 is as near to 0 as to 3 and takes the first.
    assert found["nearest"][0, :, 0].tolist() == pytest.approx([0.0, 0.0])
    assert set(found) == set(METHODS[1:])


def test_nearest_counts_time_too() -> None:
    cubes = (torch.arange(8) / 10.0)[None, :, None].expand(1, 8, 6)
    found = guess_baselines(cubes, torch.tensor([[0, 7]]), torch.tensor([[4, 3]]), side=2)
    assert found["nearest"][0, :, 0].tolist() == pytest.approx([0.0, 0.7])


def test_psnr() -> None:
    assert psnr(0.01) == pytest.approx(20.0)
    assert psnr(1.0) == 0.0
    assert psnr(0.0) == 100.0


def test_filled_clips_keep_what_was_visible() -> None:
    geometry = Geometry(frames=4, size=2, patch=2)
    cubes = torch.rand(1, 2, 24)
    guess = {"checkpoint": torch.full((1, 1, 24), 2.0)}
    found = Reconstruction(("k",), cubes, torch.tensor([[True, False]]), torch.tensor([[1]]), torch.zeros(1, 2), guess)
    clip = found.clips("checkpoint", geometry)
    assert clip.shape == (1, 3, 4, 2, 2)
    assert torch.equal(clip[:, :, :2].flatten(), cubes[0, 0].view(3, 2, 2, 2).flatten())
    assert torch.equal(clip[:, :, 2:], torch.ones(1, 3, 2, 2, 2))
