"""Which frames a classifier sees of a video."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eval.clips import all_windows, centre_clip, random_clip
from eval.features import WindowSpec
from eval.questions import Video
from eval.sequences import FrameSequence
from pipeline.dataset import Sample

SPEC = WindowSpec(clip=4, rate=2, stride=3, batch=8)


def video(*lengths: int) -> Video:
    """A video with faces that are seen for so many frames."""
    faces = [
        FrameSequence("v", n, "train", (Sample(f"v{n}", "0", "s", length, "v", "v", n, 0, "train", {}),))
        for n, length in enumerate(lengths)
    ]
    return Video("v", "v", "train", {}, tuple(faces))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(0, 50), st.integers(0, 50))
def test_clips_lie_in_their_face_and_keep_their_distance(lengths: list[int], seed: int, epoch: int) -> None:
    for place in (random_clip(video(*lengths), SPEC, seed, epoch), centre_clip(video(*lengths), SPEC)):
        frames = place.sequence.frames
        assert place.index_T.min() >= 0
        assert place.index_T.max() < frames
        steps = set(np.diff(place.index_T).tolist())
        assert steps == {2} if frames >= 7 else place.index_T[-1] == frames - 1


def test_every_start_of_every_face_is_as_likely() -> None:
    both = video(9, 7)  # three starts and one
    drawn = Counter(
        (place.sequence.track, int(place.index_T[0]))
        for epoch in range(4000)
        for place in [random_clip(both, SPEC, 0, epoch)]
    )
    assert set(drawn) == {(0, 0), (0, 1), (0, 2), (1, 0)}
    assert all(900 < count < 1100 for count in drawn.values())


def test_the_centre_and_all_windows() -> None:
    both = video(7, 11)
    centre = centre_clip(both, SPEC)
    assert (centre.sequence.track, centre.index_T.tolist()) == (1, [2, 4, 6, 8])
    windows = [(place.sequence.track, place.index_T.tolist()) for place in all_windows(both, SPEC)]
    assert windows == [(0, [0, 2, 4, 6]), (1, [0, 2, 4, 6]), (1, [3, 5, 7, 9]), (1, [4, 6, 8, 10])]
