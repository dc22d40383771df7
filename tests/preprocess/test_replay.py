"""Frames that are gone through twice."""

from collections.abc import Iterator

import numpy as np
import pytest

from preprocess.decode import replay
from preprocess.decode.frame import Frame
from preprocess.decode.replay import Replay


class _Video:
    """Four frames of 12 bytes; counts how often it is decoded and how often a frame is looked at."""

    def __init__(self) -> None:
        self.decoded = self.shown = 0

    def frames(self) -> Iterator[Frame]:
        self.decoded += 1
        for index in range(4):
            yield Frame(index, index / 25, self._show)

    def _show(self) -> np.ndarray:
        self.shown += 1
        return np.full((2, 2, 3), 7, np.uint8)


@pytest.mark.parametrize(("limit", "decodings"), [(48, 1), (47, 3), (0, 3)])
def test_what_fits_is_decoded_once(limit: int, decodings: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "REPLAY_BYTES", limit)
    video, kept = _Video(), Replay()
    passes = [[(frame.index, frame.time, frame.rgb.sum()) for frame in kept.frames(video.frames)] for _ in range(3)]
    assert passes[0] == passes[1] == passes[2] == [(index, index / 25, 84) for index in range(4)]
    assert video.decoded == decodings


def test_a_pass_that_was_left_is_not_remembered() -> None:
    video, kept = _Video(), Replay()
    assert next(kept.frames(video.frames)).index == 0
    assert len(list(kept.frames(video.frames))) == 4
    assert video.decoded == 2


def test_colours_are_converted_once_and_only_when_looked_at() -> None:
    video, kept = _Video(), Replay()
    for frame in kept.frames(video.frames):
        assert frame.rgb is frame.rgb
    assert sum(frame.rgb.sum() for frame in kept.frames(video.frames)) == 4 * 84
    assert video.shown == 4
    assert len(list(video.frames())) == 4
    assert video.shown == 4
