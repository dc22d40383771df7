"""Region grids and overlays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocess.regions import COLOURS, REGIONS, overlay, patch_grid


def test_regions_stand_in_the_published_order() -> None:
    assert REGIONS == ("background", "skin", "left-eye", "right-eye", "nose", "mouth", "hair")
    assert len(set(COLOURS)) == len(REGIONS)


@given(st.data(), st.sampled_from([1, 2, 4, 8]), st.integers(1, 3), st.integers(1, 3))
def test_grid_has_a_bit_for_each_region_that_touches_a_patch(
    data: st.DataObject, patch: int, cells: int, frames: int
) -> None:
    side = patch * cells
    labels = data.draw(arrays(np.uint8, (frames, side, side), elements=st.integers(0, 6)))

    grid = patch_grid(labels, patch)

    assert grid.shape == (frames, cells, cells)
    assert grid.dtype == np.uint8
    for frame, row, column in np.ndindex(grid.shape):
        block = labels[frame, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        assert grid[frame, row, column] == sum(1 << region for region in set(block.ravel().tolist()))


@pytest.mark.parametrize(("side", "label"), [(15, 0), (16, 7)])
def test_grid_refuses_what_it_cannot_tell(side: int, label: int) -> None:
    with pytest.raises(ValueError, match=r"patches|regions"):
        patch_grid(np.full((1, side, side), label, np.uint8), 4)


def test_overlay_tints_regions_and_leaves_the_background() -> None:
    frame = np.full((2, 2, 3), 100, np.uint8)
    labels = np.array([[0, 1], [5, 6]], np.uint8)

    tinted = overlay(frame, labels)

    assert tinted[0, 0].tolist() == [100, 100, 100]
    assert all((tinted[place] != 100).any() for place in [(0, 1), (1, 0), (1, 1)])
    assert overlay(frame, labels, strength=1.0)[1, 1].tolist() == list(COLOURS[6])
