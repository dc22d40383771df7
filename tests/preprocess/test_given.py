"""Videos of one face that bring their label maps along: `detector: none` with `parser: given`, without networks."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from drawn_videos import counting_frames, number_of, write_video
from labelled_videos import some_maps, write_labelled
from pydantic import ValidationError

from pipeline.config.schema import PreprocessConfig
from pipeline.storage import Store, open_store
from preprocess.corpora import Source, open_places
from preprocess.dataset.plan import Piece, Root, Unit
from preprocess.decode.regions import read_label_maps
from preprocess.decode.video import Span, read_frames
from preprocess.models import model_files, parser_name
from preprocess.regions import patch_grid
from preprocess.unit import UnitProcessor

BOTH = {"detector": "none", "parser": "given"}
SIZE = 64


def _config(**changes: object) -> PreprocessConfig:
    small = {"size": SIZE, "patch": 16, "clip_frames": 16, "min_frames": 8, "min_sharpness": 0.0, **BOTH}
    return PreprocessConfig.model_validate({**small, **changes})


Process = Callable[..., tuple[Store, dict[str, Any]]]


@pytest.fixture
def process(tmp_path: Path) -> Process:
    """Processes files of a folder as one unit, with no networks at all."""

    def run(names: list[str], span: Span | None = None, **changes: object) -> tuple[Store, dict[str, Any]]:
        store = open_store(str(tmp_path / "out"))
        processor = UnitProcessor(_config(**changes), store, None, open_places)
        pieces = tuple(Piece(Source(name, Path(name).stem, name), span) for name in names)
        return store, processor.process(Unit("000000", Root("folder", str(tmp_path), False, {}), pieces))

    return run


def _samples(store: Store, manifest: dict[str, Any]) -> list[dict[str, bytes]]:
    return [
        {name: store.read_range(manifest["shards"][sample["shard"]]["name"], *place) for name, place in parts.items()}
        for sample in manifest["samples"]
        for parts in [sample["parts"]]
    ]


def _maps(parts: dict[str, bytes]) -> np.ndarray:
    stacked = cv2.imdecode(np.frombuffer(parts["labels.png"], np.uint8), cv2.IMREAD_GRAYSCALE)
    return stacked.reshape(-1, SIZE, SIZE)


@pytest.mark.parametrize("pix_fmt", ["gray", "yuv420p"])
def test_label_maps_come_back_exactly(tmp_path: Path, pix_fmt: str) -> None:
    maps = some_maps(12, 64, 96)
    video = write_labelled(tmp_path / "v.mp4", counting_frames(12, 64, 96), [maps], pix_fmt=pix_fmt)

    read = list(read_label_maps(video))

    np.testing.assert_array_equal(np.stack([labels for _, labels in read]), maps)
    assert [time for time, _ in read] == [frame.time for frame in read_frames(video)]


def test_label_maps_follow_a_span_and_another_rate(tmp_path: Path) -> None:
    maps = some_maps(50, 64, 64)
    video = write_labelled(tmp_path / "v.mp4", counting_frames(50, 64, 64), [maps])

    for span, fps in (((0.4, 1.2), None), (None, 10.0), ((0.8, 2.0), 12.5)):
        shown = [number_of(frame.rgb) for frame in read_frames(video, span, fps)]
        read = [labels for _, labels in read_label_maps(video, span, fps)]
        np.testing.assert_array_equal(np.stack(read), maps[shown])
        assert len(shown) > 5


def test_a_turned_video_has_turned_label_maps(tmp_path: Path) -> None:
    maps = some_maps(8, 64, 96)
    video = write_labelled(tmp_path / "v.mov", counting_frames(8, 64, 96), [maps], rotation=90)

    read = np.stack([labels for _, labels in read_label_maps(video)])

    assert next(iter(read_frames(video))).rgb.shape == (96, 64, 3)
    np.testing.assert_array_equal(read, np.rot90(maps, axes=(1, 2)))


def test_maps_that_begin_later_than_the_pictures_are_not_those_of_the_first(process: Process, tmp_path: Path) -> None:
    write_labelled(tmp_path / "late.mp4", counting_frames(40, SIZE, SIZE), [some_maps(34, SIZE, SIZE)], late=6)
    _, manifest = process(["late.mp4"])
    [bad] = manifest["quarantined"]
    assert bad["reason"] == "no-regions"
    assert "give both video streams the same times" in bad["detail"]


def test_whole_pictures_become_samples_with_the_maps_of_the_video(process: Process, tmp_path: Path) -> None:
    frames, maps = counting_frames(40, SIZE, SIZE), some_maps(40, SIZE, SIZE)
    write_labelled(tmp_path / "who.mp4", frames, [maps])

    store, manifest = process(["who.mp4"], holdout=0.25)

    assert manifest["quarantined"] == []
    runs = [(sample["start"], sample["frames"], sample["split"]) for sample in manifest["samples"]]
    assert runs == [(0, 16, "train"), (16, 14, "train"), (30, 10, "val")]
    for (start, count, _), parts in zip(runs, _samples(store, manifest), strict=True):
        np.testing.assert_array_equal(_maps(parts), maps[start : start + count])
        np.testing.assert_array_equal(
            np.load(io.BytesIO(parts["regions.npy"])), patch_grid(maps[start : start + count], 16)
        )
        shown = [cv2.imdecode(np.frombuffer(parts[f"{n:03d}.jpg"], np.uint8), 1)[..., ::-1] for n in range(count)]
        assert [number_of(rgb) for rgb in shown] == list(range(start, start + count))
        record = json.loads(parts["json"])
        assert (record["detector"], record["parser"], record["models"]) == ("none", "given", {})
        assert record["boxes"] == [[0.0, 0.0, SIZE, SIZE]] * count
        assert record["unparsed"] == []
        assert record["times"] == [round((start + n) / 25, 4) for n in range(count)]


def test_other_sizes_are_resampled_to_the_nearest_value(process: Process, tmp_path: Path) -> None:
    maps = some_maps(16, 64, 128)
    write_labelled(tmp_path / "wide.mp4", counting_frames(16, 256, 512), [np.repeat(maps, 2, axis=2)])

    store, manifest = process(["wide.mp4"])

    [parts] = _samples(store, manifest)
    np.testing.assert_array_equal(_maps(parts), maps[:, :, ::2])
    record = json.loads(parts["json"])
    assert record["boxes"][0] == [0.0, -128.0, 512.0, 384.0]
    shown = cv2.imdecode(np.frombuffer(parts["005.jpg"], np.uint8), 1)
    assert (shown.shape, number_of(shown)) == ((SIZE, SIZE, 3), 5)


def test_videos_without_usable_maps_are_quarantined_and_say_why(process: Process, tmp_path: Path) -> None:
    frames, maps = counting_frames(16, SIZE, SIZE), some_maps(16, SIZE, SIZE)
    write_video(tmp_path / "bare.mp4", frames)
    write_labelled(tmp_path / "few.mp4", frames, [maps[:10]])
    write_labelled(tmp_path / "fast.mp4", frames, [np.repeat(maps, 2, axis=0)], map_fps=50)
    write_labelled(tmp_path / "shades.mp4", frames, [maps * 36])
    write_labelled(tmp_path / "good.mp4", frames, [maps])
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"frames/{number}.png"), frame)

    _, manifest = process(["bare.mp4", "few.mp4", "fast.mp4", "shades.mp4", "good.mp4", "frames/"])

    assert [sample["source"] for sample in manifest["samples"]] == ["good.mp4"]
    assert {entry["reason"] for entry in manifest["quarantined"]} == {"no-regions"}
    assert [entry["detail"] for entry in manifest["quarantined"]] == [
        "it has no second video stream with label maps, which preprocess.parser=given takes",
        "its label maps end after 10 of 16 frames",
        "its label map 1 is of 0.02 s and its picture of 0.04 s: give both video streams the same times",
        "its second video stream has the value 216 at 0.00 s, and regions are 0 to 6: code it without loss "
        "(libx264 with qp=0)",
        "a folder of frames has no second video stream with label maps",
    ]


def test_filters_that_need_no_mesh_still_judge(process: Process, tmp_path: Path) -> None:
    frames, maps = counting_frames(16, SIZE, SIZE), some_maps(16, SIZE, SIZE)
    write_labelled(tmp_path / "who.mp4", frames, [maps])

    _, manifest = process(["who.mp4"], min_face=SIZE + 1)

    assert [entry["reason"] for entry in manifest["quarantined"]] == ["too-small"]


def test_no_model_file_is_needed_or_named() -> None:
    cfg = _config(models={"detector": "/nowhere/scrfd.onnx"})
    assert model_files(cfg) == ()
    assert parser_name(cfg) == "given"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"detector": "scrfd"}, "parser=given .* set preprocess.detector=none as well"),
        ({"parser": "landmarks"}, "parser=landmarks needs the face mesh"),
        ({"parser": "farl", "models": {"farl": "farl.pt"}}, "parser=farl needs the face mesh"),
        ({"max_yaw": 30}, "max_yaw needs the face mesh"),
        ({"max_pitch": 30}, "max_pitch needs the face mesh"),
        ({"margin": 0.5}, "margin needs a picture around the face"),
        ({"network_actors": 1}, "network_actors: there are no networks"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        _config(**changes)
