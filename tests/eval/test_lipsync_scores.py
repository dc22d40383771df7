"""Scores of pictures and margins where the answer is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from eval.lipsync.faces import TalkingFace
from eval.lipsync.margins import margin
from eval.lipsync.measure import copied_lower, sounds_of_others
from eval.lipsync.pictures import Frechet, mouth_scores
from eval.sequences import FrameSequence
from pipeline.errors import UsageError


class Means(torch.nn.Module):
    """In the place of Inception: 2048 numbers of each picture, the first ones its means by colour and quarter."""

    def forward(self, x: torch.Tensor, return_features: bool) -> torch.Tensor:
        seen = torch.nn.functional.adaptive_avg_pool2d(x.float(), [2, 2]).flatten(1) / 255
        return torch.nn.functional.pad(seen, [0, 2048 - seen.shape[1]])


@pytest.fixture
def inception(tmp_path: Path) -> str:
    path = tmp_path / "means.pt"
    torch.jit.save(torch.jit.script(Means()), str(path))
    return str(path)


def noise(seed: int, frames: int = 40, low: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, 256, (frames, 32, 32, 3), dtype=np.uint8)


def test_frechet_distance_of_a_set_from_itself_is_0_and_from_brighter_ones_that_of_the_means(inception: str) -> None:
    same = Frechet(inception)
    same.add(noise(0), real=True)
    same.add(noise(0)[::-1].copy(), real=False)
    assert same.distance() == pytest.approx(0, abs=1e-4)
    apart = Frechet(inception)
    dark = noise(0) // 2
    apart.add(dark, real=True)
    apart.add(dark + 100, real=False)
    # Means are 100 / 255 apart in twelve numbers, and covariances are the same.
    assert apart.distance() == pytest.approx(12 * (100 / 255) ** 2, rel=1e-3)


def test_other_files_are_no_inception(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"eval\.lipsync\.inception=.*no such file"):
        Frechet(str(tmp_path / "none.pt"))
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="is no TorchScript file"):
        Frechet(str(tmp_path / "bad.pt"))
    (tmp_path / "empty.pt").touch()
    with pytest.raises(UsageError, match="is no TorchScript file"):
        Frechet(str(tmp_path / "empty.pt"))
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(tmp_path / "other.pt"))
    with pytest.raises(UsageError, match="is not the Inception of FID"):
        Frechet(str(tmp_path / "other.pt"))


def test_mouths_are_compared_where_they_are() -> None:
    real = noise(1, frames=3)
    drawn = real.copy()
    drawn[:, :8] = 0  # far from the mouth
    box = (8, 20, 24, 30)
    assert mouth_scores(drawn, real, [box, None, box]) == (100.0, pytest.approx(1.0))
    drawn[:, 20:30, 8:24] = np.clip(real[:, 20:30, 8:24].astype(int) + 16, 0, 255)
    changed = drawn[0, 20:30, 8:24].astype(float) - real[0, 20:30, 8:24]
    found = mouth_scores(drawn[:1], real[:1], [box])
    assert found is not None
    assert found[0] == pytest.approx(10 * np.log10(255**2 / np.mean(changed**2)))
    assert found[1] < 1
    assert mouth_scores(drawn, real, [None] * 3) is None


@pytest.mark.parametrize("box", [(8, 20, 24, 30), (0, 0, 5, 3), (30, 30, 32, 32), (0, 0, 32, 32)])
def test_structure_of_a_mouth_is_that_of_the_whole_picture_there(box: tuple[int, int, int, int]) -> None:
    real, drawn = noise(1, frames=1), noise(2, frames=1)
    _, whole = structural_similarity(real[0], drawn[0], channel_axis=-1, data_range=255, full=True)
    left, top, right, bottom = box
    found = mouth_scores(drawn, real, [box])
    assert found is not None
    assert found[1] == pytest.approx(whole[top:bottom, left:right].mean())


def test_a_copied_lower_half_is_that_of_half_a_video_away() -> None:
    frames = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None, None], (6, 4, 4, 3))
    copied = copied_lower(frames)
    assert copied[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert copied[:, 2, 0, 0].tolist() == [3, 4, 5, 0, 1, 2]


def test_intervals_draw_people_not_videos() -> None:
    values, people = [0.0] * 50 + [1.0] * 50, ["anna"] * 50 + ["berta"] * 50
    found = margin(values, people, resamples=500, seed=0)
    assert found.mean == 0.5
    assert found.interval == (0.0, 1.0)  # both draws of two people may be the same one
    narrow = margin(values, [str(n) for n in range(100)], resamples=500, seed=0)
    assert narrow.interval is not None
    assert 0.38 < narrow.interval[0] < 0.5 < narrow.interval[1] < 0.62
    assert margin(values, people, resamples=0, seed=0).interval is None
    assert margin(values, ["anna"] * 100, resamples=500, seed=0).interval is None


def test_everyone_hears_two_others_of_other_people_where_there_are_any() -> None:
    def faces(*people: str) -> list[TalkingFace]:
        return [TalkingFace(FrameSequence(f"{n}", 0, "test", ()), person) for n, person in enumerate(people)]

    for people in (("a", "a", "b", "b", "c"), ("a", "a", "a"), ("a", "a", "b"), ("a", "b", "a", "b", "b", "c", "b")):
        for place, (heard, third) in enumerate(sounds_of_others(faces(*people))):
            assert len({place, heard, third}) == 3
            assert people[heard] != people[place] or set(people) == {people[place]}
            assert len({people[n] for n in (place, heard, third)}) == min(3, len(set(people)))
