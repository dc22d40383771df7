"""Corpora through the whole stage: identities, splits and labels arrive in plan, manifests and samples."""

import json
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import pytest
from corpora import put_csv, put_ffpp, put_lrs2, put_ytf
from drawn_videos import with_tone
from video_server import SIGNATURE, serving

from pipeline.cli import main
from pipeline.config.schema import Config, CorpusConfig
from pipeline.layout import dataset_store
from pipeline.storage import open_store
from preprocess.corpora import list_corpus
from preprocess.dataset.plan import read_plan
from preprocess.dataset.planning import extend_plan
from preprocess.dataset.settings import content_settings
from preprocess.decode.video import read_frames
from preprocess.stage import run_preprocess

MakeConfig = Callable[..., Config]

pytestmark = pytest.mark.slow


def made(cfg: Config, kind: str, **keys: Any) -> tuple[Config, dict[str, dict[str, Any]]]:
    """Runs the stage; gives the sources of all manifests by name."""
    corpus = CorpusConfig(kind=kind, path=cfg.corpus.path, name="faces", **keys)  # type: ignore[arg-type]
    cfg = cfg.model_copy(update={"corpus": corpus})
    summary = run_preprocess(cfg, progress=False)
    assert dict(summary.quarantine) == {}
    store = dataset_store(cfg)
    manifests = [json.loads(store.read(item.key)) for item in store.list("units/")]
    return cfg, {source["source"]: source for manifest in manifests for source in manifest["sources"]}


def planned(cfg: Config) -> dict[str, Any]:
    plan = read_plan(dataset_store(cfg), content_settings(cfg.preprocess)).plan
    return {piece.source.name: piece.source for unit in plan.units for piece in unit.pieces}


def info(cfg: Config) -> Any:
    return json.loads(dataset_store(cfg).read("dataset.json"))


@pytest.fixture(scope="module")
def face_images(face_clip: Path) -> list[bytes]:
    """The frames of a real face as JPEG files."""
    return [cv2.imencode(".jpg", frame.rgb[..., ::-1])[1].tobytes() for frame in read_frames(face_clip)]


def test_youtube_faces_from_a_bucket(
    face_images: list[bytes], make_config: MakeConfig, tmp_path: Path, s3_url: str
) -> None:
    put_ytf(tmp_path / "raw", ["Ann_Lee/0", "Bo_Ek/3"], face_images[:16])
    put_ytf(tmp_path / "raw", ["Ann_Lee/1"], face_images[16:])
    raw = open_store(f"{s3_url}/raw")
    for path in (tmp_path / "raw").rglob("*.jpg"):
        raw.write_file(path.relative_to(tmp_path / "raw").as_posix(), path)

    cfg, there = made(make_config(f"{s3_url}/raw", holdout=0), "ytf")
    local = make_config(tmp_path / "raw", tmp_path / "local", holdout=0)
    _, here = made(local, "ytf")

    assert here == there
    assert {name: source["identity"] for name, source in there.items()} == {
        "Ann_Lee/0": "Ann_Lee",
        "Ann_Lee/1": "Ann_Lee",
        "Bo_Ek/3": "Bo_Ek",
    }
    assert {(source["fps"], source["frames"], source["samples"]) for source in there.values()} == {(24.0, 16, 1)}
    assert info(cfg)["findings"] == ["ytf: 3 videos, the official corpus has 3,425"]


def test_face_forensics(face_clip: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    put_ffpp(tmp_path / "raw", {"train": [("000", "003")], "test": [("953", "974")]}, face_clip)

    cfg, sources = made(make_config(tmp_path / "raw"), "ffpp", parts=("original", "FaceSwap"))

    assert len(sources) == 8
    assert sources["FaceSwap/c23/974_953"]["labels"] == {"fake": "fake", "method": "FaceSwap"}
    assert sources["original/c23/003"]["labels"] == {"fake": "real", "method": "original"}
    assert sources["original/c23/003"]["identity"] == sources["FaceSwap/c23/003_000"]["identity"] == "000"
    plan = planned(cfg)
    assert plan["FaceSwap/c23/003_000"].split == plan["original/c23/000"].split == "train"
    assert plan["FaceSwap/c23/974_953"].split == "test"
    assert info(cfg)["labels"]["fake"] == {"type": "class", "names": ["real", "fake"]}


def test_lrs2(face_clip: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    lists = {"train": ["5535/00001"], "val": ["6001/00005"], "test": ["6330/00011"]}
    put_lrs2(tmp_path / "raw", lists, with_tone(tmp_path / "talk.mp4", face_clip, seconds=2))

    cfg, sources = made(make_config(tmp_path / "raw"), "lrs2")

    assert {name: source["identity"] for name, source in sources.items()} == {
        "main/5535/00001": "5535",
        "main/6001/00005": "6001",
        "main/6330/00011": "6330",
    }
    plan = planned(cfg)
    assert {name: source.split for name, source in plan.items()} == {
        "main/5535/00001": "train",
        "main/6001/00005": "val",
        "main/6330/00011": "test",
    }
    assert plan["main/6001/00005"].text == "SENTENCE OF 6001/00005"
    assert json.loads(dataset_store(cfg).read("plan.json"))["corpora"][0]["audio"] is True
    store = dataset_store(cfg)
    samples = [sample for item in store.list("units/") for sample in json.loads(store.read(item.key))["samples"]]
    assert Counter(sample["split"] for sample in samples) == {"train": 2, "val": 2, "test": 2}
    assert all({"flac", "txt"} <= sample["parts"].keys() for sample in samples)
    # Schema, length of the sound, transcript: all of it is verified by the verb.
    (tmp_path / "lrs2.json").write_text(cfg.model_dump_json())
    assert main(["dataset", "verify", "-c", str(tmp_path / "lrs2.json"), "--deep"]) == 0


def test_a_list_of_signed_urls(
    face_clip: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(face_clip.read_bytes()) as server:
        rows = [
            {"url": f"{server.url}/signed/{name}.mp4?{SIGNATURE}", "who": who, "split": split, "mood": mood}
            for name, who, split, mood in (("a", "Ann", "train", "glad"), ("b", "Bo", "test", "sad"))
        ]
        path = put_csv(tmp_path / "list.csv", rows)
        cfg, sources = made(make_config(path), "list")
    assert {name.rpartition("/")[2]: source["labels"] for name, source in sources.items()} == {
        "a.mp4": {"who": "Ann", "mood": "glad"},
        "b.mp4": {"who": "Bo", "mood": "sad"},
    }
    assert [source.split for _, source in sorted(planned(cfg).items())] == ["train", "test"]
    store = dataset_store(cfg)
    for item in store.list():
        assert b"s3cr3t" not in store.read(item.key), item.key


def test_workers_of_a_list_know_their_own_rows_alone(
    face_clip: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "near.mp4").write_bytes(face_clip.read_bytes())
    table = put_csv(tmp_path / "list.csv", [{"path": "near.mp4"}, {"path": str(face_clip)}, {"path": "gone.mp4"}])
    cfg = make_config(table)
    cfg = cfg.model_copy(update={"corpus": cfg.corpus.model_copy(update={"kind": "list"})})
    settings = content_settings(cfg.preprocess)
    extend_plan(dataset_store(cfg), cfg, list_corpus(cfg.corpus), settings, progress=False)
    # From now on there is no table that another process could read, and a row less.
    table.unlink()
    rows = [{"path": "near.mp4"}, {"path": str(face_clip)}]
    monkeypatch.setattr(import_module("preprocess.corpora.listed"), "read_table", lambda *arguments: rows)

    summary = run_preprocess(cfg, progress=False)

    assert dict(summary.quarantine) == {"unreadable": 1}
    store = dataset_store(cfg)
    manifests = [json.loads(store.read(item.key)) for item in store.list("units/")]
    assert {source["source"] for unit in manifests for source in unit["sources"]} == {"near.mp4", str(face_clip)}
    [bad] = [entry for unit in manifests for entry in unit["quarantined"]]
    assert (bad["source"], bad["detail"]) == ("gone.mp4", f"no row of {table} has this name any more")
