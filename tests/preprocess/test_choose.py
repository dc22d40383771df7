"""Which runs of which tracks become samples: each filter, its counted reason, and the reason when nothing is left."""

from dataclasses import dataclass

import numpy as np
import pytest

from pipeline.config.schema import PreprocessConfig
from preprocess.faces.choose import Chosen, plan_runs
from preprocess.faces.find import Found, Stats
from preprocess.faces.fingerprint import STEP
from preprocess.faces.runs import Division
from preprocess.faces.track import Observation, Track
from preprocess.quarantine import BadSource

FPS = 20.0


@dataclass(frozen=True)
class Part:
    """Frames of a track that are alike."""

    frames: int
    side: float = 80.0
    pose: tuple[float, float] | None = (3.0, -2.0)
    sharp: float = 0.3


def _track(*parts: Part, number: int = 0, seed: int | None = None) -> Track:
    rng = np.random.default_rng(number if seed is None else seed)
    bits = rng.integers(0, 256, 18, dtype=np.uint8)
    seen: list[Observation] = []
    for part in parts:
        for _ in range(part.frames):
            box = np.array([100, 100, 100 + part.side, 100 + part.side], np.float32)
            observation = Observation(detected=box)
            if part.pose is not None:
                observation.points, observation.pose = box.reshape(2, 2), part.pose
            if len(seen) % STEP == 0:
                bits = bits ^ (1 << rng.integers(0, 8, 18)).astype(np.uint8)
                observation.sharpness, observation.print = part.sharp, bits.tobytes()
            seen.append(observation)
    return Track(start=0, observations=seen, id=number)


def _plan(*tracks: Track, **changes: object) -> tuple[list[Chosen], Stats]:
    cfg = PreprocessConfig.model_validate({"clip_frames": 64, "min_frames": 32, **changes})
    stats = Stats()
    frames = max(track.end for track in tracks)
    return plan_runs(Found(FPS, frames, frames / FPS, list(tracks)), cfg, Division(), stats), stats


def _places(chosen: list[Chosen]) -> list[tuple[int, int, int]]:
    return [(item.track.id, item.run.start, item.run.frames) for item in chosen]


GOOD = Part(64)
BAD = {
    "small": (Part(64, side=20), {}),
    "no-mesh": (Part(64, pose=None), {}),
    "blurred": (Part(64, sharp=0.01), {}),
    "pose": (Part(64, pose=(-50.0, 0.0)), {"max_yaw": 40}),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_part_costs_a_long_track_that_part_alone(reason: str) -> None:
    part, changes = BAD[reason]
    chosen, stats = _plan(_track(GOOD, GOOD, part, GOOD), **changes)
    assert _places(chosen) == [(0, 0, 64), (0, 64, 64), (0, 192, 64)]
    assert stats.dropped == {reason: 1}
    assert stats.tracks == 1


@pytest.mark.parametrize(("reason", "named"), [*zip(BAD, ["too-small", "no-face", "blurred", "pose"], strict=True)])
def test_a_source_with_nothing_else_is_refused_with_the_reason(reason: str, named: str) -> None:
    part, changes = BAD[reason]
    with pytest.raises(BadSource) as refused:
        _plan(_track(part, part), _track(Part(20), number=1), **changes)
    assert refused.value.reason == named
    assert refused.value.detail


def test_filters_are_off_or_mild_by_default() -> None:
    turned = _track(Part(64, pose=(80.0, 60.0), sharp=0.021))
    assert _places(_plan(turned)[0]) == [(0, 0, 64)]
    assert _places(_plan(_track(Part(64, sharp=0.0)), min_sharpness=0)[0]) == [(0, 0, 64)]


def test_pitch_and_yaw_are_judged_each_for_itself() -> None:
    track = _track(Part(64, pose=(30.0, -30.0)))
    assert _plan(track, max_yaw=31, max_pitch=31)[1].dropped == {}
    for changes in ({"max_yaw": 29}, {"max_pitch": 29}):
        with pytest.raises(BadSource, match="pose"):
            _plan(track, **changes)


def test_short_tracks_are_dropped_whole() -> None:
    chosen, stats = _plan(_track(Part(90)), _track(Part(64), number=1), min_track=4.5)
    assert _places(chosen) == [(0, 0, 64)]
    assert stats.dropped == {"brief": 1, "short": 1}
    with pytest.raises(BadSource, match=r"too-short: .*min_track=4\.6 seconds"):
        _plan(_track(Part(90)), min_track=4.6)


def test_what_is_seen_twice_in_a_source_is_kept_once() -> None:
    first, second = _track(GOOD, GOOD), _track(GOOD, GOOD, number=1, seed=0)
    chosen, stats = _plan(first, second, _track(GOOD, number=2))
    assert _places(chosen) == [(0, 0, 64), (2, 0, 64), (0, 64, 64)]
    assert stats.dropped == {"duplicate": 2}
    assert stats.tracks == 2
    assert len(_plan(first, second, near_duplicates=False)[0]) == 4


def test_fingerprints_of_a_run_stand_at_its_places() -> None:
    chosen, _ = _plan(_track(Part(90), Part(10, pose=None)), clip_frames=50, min_frames=20)
    assert [len(item.phash) for item in chosen] == [13, 12]
    for item in chosen:
        for index, digits in zip(range(item.run.start + -item.run.start % STEP, 100, STEP), item.phash, strict=False):
            observation = item.track.at(index)
            assert digits == (observation.print or b"").hex()
