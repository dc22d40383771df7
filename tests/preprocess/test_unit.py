"""One unit from videos to a committed manifest, with the real networks on real faces."""

import io
import itertools
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from drawn_videos import counting_frames, write_audio, write_video

import preprocess.corpora.clip
import preprocess.decode.replay
import preprocess.unit
from pipeline.config.schema import Config
from pipeline.storage import Store, open_store
from preprocess.corpora import Source, open_places
from preprocess.dataset.plan import Piece, Root, Unit
from preprocess.decode.video import read_frames
from preprocess.models import Networks
from preprocess.regions import HAIR, LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, SKIN, patch_grid
from preprocess.unit import UnitProcessor

MakeConfig = Callable[..., Config]

pytestmark = pytest.mark.slow


@pytest.fixture
def process(networks: Networks, make_config: MakeConfig, tmp_path: Path) -> Callable[..., tuple[Store, dict[str, Any]]]:
    """Processes all files of tmp_path/in as one unit into a store."""

    def run(
        names: list[str], root: str = "out", unit: str = "000003", **changes: object
    ) -> tuple[Store, dict[str, Any]]:
        cfg = make_config(tmp_path / "in", **changes)
        store = open_store(str(tmp_path / root))
        processor = UnitProcessor(cfg.preprocess, store, networks, open_places)
        pieces = tuple(Piece(Source(name, Path(name).stem, name), None) for name in names)
        return store, processor.process(Unit(unit, Root("folder", str(tmp_path / "in"), False, {}), pieces))

    (tmp_path / "in").mkdir()
    return run


def _parts(store: Store, manifest: dict[str, Any], sample: dict[str, Any]) -> dict[str, bytes]:
    shard = manifest["shards"][sample["shard"]]["name"]
    return {name: store.read_range(shard, *place) for name, place in sample["parts"].items()}


def _members(store: Store, manifest: dict[str, Any]) -> list[tuple[str, str]]:
    with tarfile.open(fileobj=io.BytesIO(store.read(manifest["shards"][0]["name"]))) as shard:
        return [(key, part) for key, _, part in (name.partition(".") for name in shard.getnames())]


def _picture(data: bytes, mode: int = cv2.IMREAD_COLOR) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), mode)


def test_a_real_face_becomes_samples_that_hold_together(process, face_clip: Path, tmp_path: Path) -> None:
    shutil.copy(face_clip, tmp_path / "in/who.mp4")

    store, manifest = process(["who.mp4"])

    assert [(sample["start"], sample["frames"], sample["split"]) for sample in manifest["samples"]] == [
        (0, 16, "train"),
        (16, 8, "train"),
        (24, 8, "val"),
    ]
    assert manifest["quarantined"] == []
    [source] = manifest["sources"]
    assert (source["tracks"], source["samples"], source["frames"], source["unparsed"]) == (1, 3, 32, 0)
    for sample in manifest["samples"]:
        assert set(sample["key"]) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
        parts = _parts(store, manifest, sample)
        labels = _picture(parts["labels.png"], cv2.IMREAD_GRAYSCALE).reshape(-1, 224, 224)
        grid = np.load(io.BytesIO(parts["regions.npy"]))
        assert grid.shape == (sample["frames"], sample["grid"], sample["grid"]) == (sample["frames"], 14, 14)
        np.testing.assert_array_equal(grid, patch_grid(labels, 16))
        assert [name for name in parts if name.endswith(".jpg")] == [f"{n:03d}.jpg" for n in range(sample["frames"])]
        assert _picture(parts["005.jpg"]).shape == (224, 224, 3)
        record = json.loads(parts["json"])
        assert record["key"] == sample["key"]
        assert record["source"] == "who.mp4"
        assert record["identity"] == "who"
        assert record["parser"] == "landmarks+hair:heuristic"
        assert len(record["boxes"]) == len(record["times"]) == sample["frames"]
        assert record["times"][0] == pytest.approx(sample["start"] / 30, abs=1e-3)


def test_regions_lie_where_a_face_has_them(process, face_clip: Path, tmp_path: Path) -> None:
    shutil.copy(face_clip, tmp_path / "in/who.mp4")
    store, manifest = process(["who.mp4"])
    parts = _parts(store, manifest, manifest["samples"][0])
    labels = _picture(parts["labels.png"], cv2.IMREAD_GRAYSCALE)[:224]

    rows, columns = {}, {}
    for region in (SKIN, LEFT_EYE, RIGHT_EYE, NOSE, MOUTH, HAIR):
        place = np.argwhere(labels == region)
        rows[region], columns[region] = place.mean(axis=0)
    # The person's own left is on the right of the picture.
    assert columns[RIGHT_EYE] < columns[NOSE] < columns[LEFT_EYE]
    assert rows[HAIR] < rows[LEFT_EYE] < rows[NOSE] < rows[MOUTH]
    shares = np.bincount(labels.ravel(), minlength=7) / labels.size
    assert 0.35 < shares[SKIN] < 0.75
    assert 0.03 < shares[HAIR] < 0.25
    assert all(0.005 < shares[region] < 0.08 for region in (LEFT_EYE, RIGHT_EYE, NOSE, MOUTH))
    # This man's hair is near black and his skin is not.
    frame = _picture(parts["000.jpg"])
    assert frame[labels == HAIR].mean() < 0.6 * frame[labels == SKIN].mean()


def test_two_faces_in_a_picture_are_two_tracks(process, face_clip: Path, tmp_path: Path) -> None:
    frames = np.stack([frame.rgb for frame in read_frames(face_clip)])[:24]
    write_video(tmp_path / "in/both.mp4", np.concatenate([frames, frames[:, :, ::-1]], axis=2))

    _, manifest = process(["both.mp4"], holdout=0.0)

    assert [(sample["track"], sample["start"], sample["frames"]) for sample in manifest["samples"]] == [
        (0, 0, 16),
        (1, 0, 16),
        (0, 16, 8),
        (1, 16, 8),
    ]
    assert len({sample["key"] for sample in manifest["samples"]}) == 4


def test_the_same_unit_has_the_same_bytes(process, face_clip: Path, tmp_path: Path) -> None:
    shutil.copy(face_clip, tmp_path / "in/who.mp4")
    first, manifest = process(["who.mp4"], root="first")
    second, again = process(["who.mp4"], root="second")

    assert manifest == again
    files = [item.key for item in first.list()]
    assert files == [item.key for item in second.list()]
    assert len(files) == 2
    for name in files:
        assert first.read(name) == second.read(name)


def test_whoever_commits_first_wins_and_the_loser_leaves_nothing(process, face_clip: Path, tmp_path: Path) -> None:
    shutil.copy(face_clip, tmp_path / "in/who.mp4")
    store, winner = process(["who.mp4"])
    before = {item.key: item.size for item in store.list()}

    _, counted = process(["who.mp4"], jpeg_quality=40)

    assert counted == winner
    assert {item.key: item.size for item in store.list()} == before


def test_bad_sources_are_quarantined_one_by_one(process, face_clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copy(face_clip, folder / "good.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video\n" * 99)
    write_audio(folder / "sound.mp4")
    write_video(folder / "noface.mp4", counting_frames(20))
    frames = np.stack([frame.rgb for frame in read_frames(face_clip)])
    write_video(folder / "brief.mp4", frames[:6])
    write_video(folder / "tiny.mp4", frames[:20])
    (folder / "locked.mp4").symlink_to(folder / "nowhere")
    names = ["empty.mp4", "text.mp4", "good.mp4", "sound.mp4", "noface.mp4", "brief.mp4", "locked.mp4", "gone.mp4"]

    store, manifest = process(names, holdout=0.0)

    assert {entry["source"]: entry["reason"] for entry in manifest["quarantined"]} == {
        "empty.mp4": "unreadable",
        "text.mp4": "unreadable",
        "sound.mp4": "no-video",
        "noface.mp4": "no-face",
        "brief.mp4": "too-short",
        "locked.mp4": "unreadable",
        "gone.mp4": "unreadable",
    }
    assert all(entry["detail"] for entry in manifest["quarantined"])
    assert {sample["source"] for sample in manifest["samples"]} == {"good.mp4"}
    assert process(["tiny.mp4"], unit="000004", min_face=500)[1]["quarantined"][0]["reason"] == "too-small"
    assert {key for key, _ in _members(store, manifest)} == {sample["key"] for sample in manifest["samples"]}


def test_a_source_that_fails_half_way_leaves_no_sample(
    process, face_clip: Path, tmp_path: Path, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(face_clip, tmp_path / "in" / name)
    monkeypatch.setattr(preprocess.decode.replay, "REPLAY_BYTES", 0)  # so that the second pass decodes again
    real, calls = preprocess.corpora.clip.read_frames, []

    def failing(file: Path, *args: Any) -> Any:
        calls.append(file.name)
        broken = file.name == "b.mp4" and calls.count("b.mp4") == 2
        for frame in real(file, *args):
            if broken and frame.index == 18:
                raise OSError("the disk went away")
            yield frame

    monkeypatch.setattr(preprocess.corpora.clip, "read_frames", failing)
    store, manifest = process(["a.mp4", "b.mp4"])

    [bad] = manifest["quarantined"]
    assert (bad["source"], bad["reason"]) == ("b.mp4", "failed")
    assert {key for key, _ in _members(store, manifest)} == {sample["key"] for sample in manifest["samples"]}
    assert {sample["source"] for sample in manifest["samples"]} == {"a.mp4"}


def test_shards_that_a_removal_took_for_leftovers_are_put_again(
    process, face_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(face_clip, tmp_path / "in/a.mp4")
    real = preprocess.unit.commit

    def late(store: Store, unit: Unit, shards: list[Any], content: Any) -> dict[str, Any]:
        for entry in shards:
            store.delete(entry.name)
        return real(store, unit, shards, content)

    monkeypatch.setattr(preprocess.unit, "commit", late)
    store, manifest = process(["a.mp4"])
    assert manifest["shards"]
    assert _members(store, manifest)


def test_a_video_that_changes_between_the_passes_is_refused(
    process, face_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(face_clip, tmp_path / "in/a.mp4")
    monkeypatch.setattr(preprocess.decode.replay, "REPLAY_BYTES", 0)
    real, calls = preprocess.corpora.clip.read_frames, []

    def shrinking(*args: Any) -> Any:
        calls.append(args)
        return itertools.islice(real(*args), None if len(calls) == 1 else 20)

    monkeypatch.setattr(preprocess.corpora.clip, "read_frames", shrinking)
    _, manifest = process(["a.mp4"])
    [bad] = manifest["quarantined"]
    assert "fewer frames" in bad["detail"]
    assert manifest["samples"] == manifest["shards"] == []
