"""The second pass: faces are parsed in batches that are always the same, and samples do not depend on them."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest

from pipeline.config.schema import PreprocessConfig
from preprocess.arrays import Floats, Image
from preprocess.corpora import Source
from preprocess.cutout import make_samples
from preprocess.decode.frame import Frame
from preprocess.faces.find import Found, Stats
from preprocess.faces.track import Observation, Track

FRAMES, SIZE = 40, 32
# Frames in which the mesh of the second track was lost, and one that the parser refuses (its first pixel is dark).
LOST, REFUSED = (20, 21), 30


@dataclass
class Recorder:
    """A parser that writes down its calls and labels a picture by its brightness."""

    name: str = "recorder"
    calls: list[list[tuple[int, int]]] = field(default_factory=list)

    def __call__(self, pictures: Sequence[Image], points: Sequence[Floats]) -> list[Image | None]:
        inside = [picture[16:-16, 16:-16] for picture in pictures]
        self.calls.append([(int(one[0, 0, 0]), int(one[0, 0, 1])) for one in inside])
        return [None if (one[..., 0] == REFUSED).any() else (one[..., 0] % 7).astype(np.uint8) for one in inside]


class _Clip:
    """Grey frames whose red is their number and whose green tells the left half from the right one."""

    key = "000001"
    span = None

    source = Source("who.mp4", "who", "who.mp4")

    def frames(self, fps: float | None) -> Iterator[Frame]:
        for index in range(FRAMES):
            rgb = np.zeros((120, 240, 3), np.uint8)
            rgb[..., 0] = index
            rgb[:, 120:, 1] = 200
            yield Frame.of(index, index / 25, rgb)


class _Networks:
    def __init__(self) -> None:
        self.parser = Recorder()
        self.models = (("net", "0" * 64),)


def _track(number: int, start: int, middle: float, lost: Sequence[int] = ()) -> Track:
    around = np.stack(np.meshgrid(np.linspace(-30, 30, 26), np.linspace(-30, 30, 18)), axis=-1).reshape(-1, 2)
    points = (around + np.array([middle, 60])).astype(np.float32)
    box = np.array([middle - 30, 30, middle + 30, 90], np.float32)
    seen = [Observation(box, None if start + row in lost else points) for row in range(FRAMES - start)]
    return Track(start=start, observations=seen, id=number)


def _cut(parse_batch: int) -> tuple[list[tuple[str, dict[str, bytes]]], Stats, Recorder]:
    cfg = PreprocessConfig(size=SIZE, patch=8, clip_frames=16, min_frames=8, parse_batch=parse_batch, min_face=8)
    found = Found(fps=25.0, frames=FRAMES, seconds=FRAMES / 25, tracks=[_track(0, 0, 60), _track(1, 3, 180, LOST)])
    networks, stats = _Networks(), Stats()
    builders = make_samples(_Clip(), found, stats, cfg, networks)  # type: ignore[arg-type]
    return [(builder.head["key"], builder.parts()) for builder in builders], stats, networks.parser


@pytest.mark.parametrize("parse_batch", [1, 5, 16, 1000])
def test_samples_do_not_depend_on_the_batch(parse_batch: int) -> None:
    samples, stats, parser = _cut(parse_batch)
    wanted, same, _ = _cut(7)

    assert samples == wanted
    assert stats == same
    assert [key for key, _ in samples] == [
        f"000001-t{track:02d}-{start:06d}" for track, start in ((0, 0), (1, 3), (0, 16), (1, 19), (0, 32))
    ]
    assert parser.calls == _cut(parse_batch)[2].calls


def test_batches_follow_the_frames_and_are_full() -> None:
    _, _, parser = _cut(16)

    order = [face for call in parser.calls for face in call]
    assert [index for index, _ in order] == sorted(index for index, _ in order)
    second = {(index, 200) for index in range(3, 35) if index not in LOST}
    assert sorted(order) == sorted({(index, 0) for index in range(FRAMES)} | second)
    # Faces without a mesh take their place in a batch, but the parser does not see them.
    assert [len(call) for call in parser.calls] == [16, 16, 14, 16, 8]


def test_frames_that_were_not_parsed_have_no_tags() -> None:
    samples, stats, _ = _cut(16)

    unparsed = {key: json.loads(parts["json"])["unparsed"] for key, parts in samples}
    assert unparsed == {
        "000001-t00-000000": [],
        "000001-t01-000003": [],
        "000001-t00-000016": [REFUSED - 16],
        "000001-t01-000019": [*(frame - 19 for frame in LOST), REFUSED - 19],
        "000001-t00-000032": [],
    }
    assert stats.unparsed == 4
    for key, parts in samples:
        grid = np.load(io.BytesIO(parts["regions.npy"]))
        labels = cv2.imdecode(np.frombuffer(parts["labels.png"], np.uint8), cv2.IMREAD_GRAYSCALE)
        for row, (tags, picture) in enumerate(zip(grid, labels.reshape(-1, SIZE, SIZE), strict=True)):
            if row in unparsed[key]:
                assert not tags.any()
                assert not picture.any()
            else:
                index = int(key[-6:]) + row
                assert set(np.unique(tags)) == {1 << index % 7}
                assert set(np.unique(picture)) == {index % 7}
