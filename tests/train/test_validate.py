"""Validation: each clip counts once, however many ranks share them, and can be looked at."""

import numpy as np
import pytest
import torch
from drawn import Drawn, MakeConfig
from torch import Tensor

from train.data.loader import fixed_batches, fixed_clips
from train.model import Geometry
from train.objective import denormalize_cubes, normalize_cubes
from train.pictures import reconstruction_picture
from train.step import Masked


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_ranks_take_turns_and_have_as_many_batches(make_config: MakeConfig, drawn: Drawn, world: int) -> None:
    cfg = make_config(train={"micro_batch": 2})
    chosen = {"split": "val", "limit": 5}
    whole = [batch.keys for batch in fixed_clips(cfg, drawn.dataset, drawn.store, **chosen)]
    total = fixed_batches(cfg, drawn.dataset, **chosen)
    assert len(whole) == total == 3
    shares = [
        [batch.keys for batch in fixed_clips(cfg, drawn.dataset, drawn.store, rank=rank, world=world, **chosen)]
        for rank in range(world)
    ]
    assert len({len(share) for share in shares}) == 1
    counted = {
        number * world + rank: keys
        for rank, share in enumerate(shares)
        for number, keys in enumerate(share)
        if number * world + rank < total
    }
    assert [counted[place] for place in range(total)] == whole


def test_denormalize_undoes_the_training_target() -> None:
    truth = torch.rand(2, 3, 24)
    assert torch.allclose(denormalize_cubes(normalize_cubes(truth), truth), truth, atol=1e-5)


GEOMETRY = Geometry(frames=4, size=4, patch=2)


@pytest.mark.parametrize("normalized", [False, True])
def test_a_picture_has_the_original_what_was_seen_and_the_guess(normalized: bool) -> None:
    cubes = torch.rand(3, GEOMETRY.tokens, GEOMETRY.cube)
    order = torch.arange(GEOMETRY.tokens).expand(3, -1)
    visible, hidden = order[:, :1], order[:, 1:]
    truth = cubes[:, 1:]

    def draw(guess: Tensor) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        masked = Masked(cubes, visible, hidden, truth, torch.zeros(3, dtype=torch.int64))
        return reconstruction_picture(masked, guess, GEOMETRY, normalized=normalized, clips=2)

    picture = draw(normalize_cubes(truth) if normalized else truth)
    assert picture.shape == (2 * 3 * 4 + 5 * 3, 2 * 4, 3)
    original, seen, guessed = (picture[row : row + 4] for row in (0, 7, 14))
    np.testing.assert_allclose(guessed, original, atol=1)
    assert (seen[:2, :2] == original[:2, :2]).all()  # the first cube
    assert (seen[2:] == 128).all()
    first = cubes[0, 0].view(3, 2, 2, 2)[:, 0].permute(1, 2, 0)
    np.testing.assert_allclose(original[:2, :2], first * 255, atol=0.51)
