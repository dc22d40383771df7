"""Drawn corpora: read back by the adapters, sound and mouth together, forgeries where they should be, all by seed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.cli import main
from pipeline.config.schema import CorpusConfig
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.storage import open_store
from preprocess.corpora import Listing, list_corpus
from preprocess.decode.audio import RATE
from preprocess.decode.regions import read_label_maps
from preprocess.decode.video import read_frames
from preprocess.drawing.corpus import NOTE, Written, draw_corpus, draw_video
from preprocess.drawing.film import film
from preprocess.drawing.layouts import LAYOUTS, Request, plan_corpus
from preprocess.drawing.looks import APPEARANCE
from preprocess.drawing.motion import ACTIONS, EMOTIONS
from preprocess.drawing.roles import take_of
from preprocess.inspect.show import label_maps
from preprocess.regions import BACKGROUND, HAIR, MOUTH

SIZE, FRAMES = 64, 32
COUNTS = {"celebv-hq": 8, "mosei": 7, "ffpp": 6, "lrs2": 5}
READ = {"celebv-hq": {"splits": "splits"}, "ffpp": {"compression": "c40"}}


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small corpus of each kind."""
    folder = tmp_path_factory.mktemp("drawn")
    for kind, count in COUNTS.items():
        draw_corpus(kind, folder / kind, Request(count, FRAMES, 3), size=SIZE, workers=1, progress=False)
    return {kind: folder / kind for kind in COUNTS}


def _listing(kind: str, folder: Path) -> Listing:
    return list_corpus(CorpusConfig.model_validate({"kind": kind, "path": str(folder), **READ.get(kind, {})}))


def _roles(kind: str) -> Mapping[str, Any]:
    return plan_corpus(kind, Request(COUNTS[kind], FRAMES, 3)).roles


@pytest.mark.parametrize("kind", COUNTS)
def test_the_adapters_find_nothing_but_that_it_is_small(drawn: dict[str, Path], kind: str) -> None:
    listing = _listing(kind, drawn[kind])

    assert len(listing.sources) == len(_roles(kind))
    assert {source.split for source in listing.sources} == {"train", "val", "test"}
    rest = [line for line in listing.findings if "the official" not in line]
    record = json.loads((drawn[kind] / "drawn.json").read_text())
    assert rest == [f"{kind}: drawings of marlin samples draw ({record['sha256'][:12]}), no recordings of people"]
    places: dict[str, set[str | None]] = {}
    for source in listing.sources:
        for name in source.everyone:
            places.setdefault(name, set()).add(source.split)
    assert all(len(splits) == 1 for splits in places.values())


def test_attributes_and_actions_are_read_back(drawn: dict[str, Path]) -> None:
    listing = _listing("celebv-hq", drawn["celebv-hq"])
    roles = _roles("celebv-hq")
    for source in listing.sources:
        role = roles[source.path]
        named = {
            kind: {name for name, value in zip(names, source.labels[kind], strict=True) if value}
            for kind, names in (("appearance", APPEARANCE), ("action", ACTIONS))
        }
        assert named == {"appearance": set(role.look.attributes), "action": set(role.script.actions)}
    assert listing.labels["appearance"]["names"] == list(APPEARANCE)


def test_emotions_and_sentiment_are_read_back(drawn: dict[str, Path]) -> None:
    listing, roles = _listing("mosei", drawn["mosei"]), _roles("mosei")
    for source in listing.sources:
        script = roles[source.path].script
        emotions = dict(zip(EMOTIONS, source.labels["emotion"], strict=True))
        assert emotions == script.emotions
        assert source.text == script.said.text
        unpleasant = max(emotions[name] for name in ("sad", "anger", "disgust", "fear"))
        assert source.labels["sentiment"] == pytest.approx(emotions["happy"] - unpleasant, abs=1e-3)


def test_forgeries_and_transcripts_are_read_back(drawn: dict[str, Path]) -> None:
    for source in _listing("ffpp", drawn["ffpp"]).sources:
        assert (source.labels["fake"] == "fake") == (_roles("ffpp")[source.path].forgery is not None)
        assert source.labels["method"] in source.path or source.labels["method"] == "original"
    for source in _listing("lrs2", drawn["lrs2"]).sources:
        assert source.text == _roles("lrs2")[source.path].script.said.text != ""


def test_a_record_says_what_it_is(drawn: dict[str, Path]) -> None:
    records = [json.loads((folder / "drawn.json").read_text()) for folder in drawn.values()]
    assert [record["kind"] for record in records] == list(drawn)
    assert len({record["sha256"] for record in records}) == len(records)
    assert {record["note"] for record in records} == {NOTE}
    assert records[2]["counts"] == {"people": 6, "splits": {"test": 10, "train": 10, "val": 10}, "videos": 30}


@pytest.mark.parametrize("kind", COUNTS)
def test_label_maps_in_the_files_are_the_drawn_ones(drawn: dict[str, Path], kind: str) -> None:
    for path, role in list(_roles(kind).items())[:3]:
        given = np.stack([labels for _, labels in read_label_maps(drawn[kind] / path)])
        np.testing.assert_array_equal(given, [labels for _, labels in film(take_of(role, FRAMES), SIZE)])


def test_the_same_arguments_give_the_same_corpus(tmp_path: Path, drawn: dict[str, Path]) -> None:
    request = Request(COUNTS["celebv-hq"], FRAMES, 3)
    draw_corpus("celebv-hq", tmp_path / "again", request, size=SIZE, workers=2, progress=False)

    files = [path.relative_to(tmp_path / "again") for path in sorted((tmp_path / "again").rglob("*")) if path.is_file()]
    assert len(files) == len(_roles("celebv-hq")) + 5
    for path in files:
        assert (tmp_path / "again" / path).read_bytes() == (drawn["celebv-hq"] / path).read_bytes()
    other = plan_corpus("celebv-hq", Request(COUNTS["celebv-hq"], FRAMES, 4)).files
    assert other["celebvhq_info.json"] != (drawn["celebv-hq"] / "celebvhq_info.json").read_text()


def _loudness(video: Path) -> NDArray[np.float64]:
    """Root mean square of the sound of each frame."""
    with av.open(str(video)) as container:
        parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        first = container.streams.audio[0].start_time
    assert first == 0
    sound = np.concatenate(parts)[: FRAMES * RATE // 25]
    return np.sqrt((sound.reshape(FRAMES, -1) ** 2).mean(axis=1))


def _mouth_heights(video: Path) -> NDArray[np.float64]:
    rows = [np.flatnonzero((labels == MOUTH).any(axis=1)) for _, labels in read_label_maps(video)]
    return np.array([row[-1] - row[0] + 1 for row in rows], np.float64)


def _agreement(video: Path) -> float:
    return float(np.corrcoef(_mouth_heights(video), _loudness(video))[0, 1])


def test_genuine_mouths_follow_the_sound_and_forged_ones_do_not(tmp_path: Path) -> None:
    found: dict[str, list[float]] = {}
    for path, role in plan_corpus("ffpp", Request(6, FRAMES, 1)).roles.items():
        if Path(path).stem[:3] in ("000", "003", "004"):
            draw_video(tmp_path / path, role, FRAMES, 128, 30)
            found.setdefault(path.split("/")[1], []).append(_agreement(tmp_path / path))
    assert {len(values) for values in found.values()} == {3}
    for method in ("youtube", "Deepfakes", "FaceSwap"):
        assert min(found[method]) > 0.9, method
    for method in ("Face2Face", "NeuralTextures"):
        assert max(found[method]) < 0.7, method
        assert np.mean(found[method]) < 0.4, method


def test_forgeries_change_the_inner_face_alone() -> None:
    corpus = plan_corpus("ffpp", Request(6, FRAMES, 5))
    for number, partner in ((0, 1), (3, 2), (4, 5)):
        role = corpus.roles[f"original_sequences/youtube/c40/videos/{number:03d}.mp4"]
        genuine = list(film(take_of(role, FRAMES), 96))
        for method in ("Deepfakes", "FaceSwap", "Face2Face", "NeuralTextures"):
            path = f"manipulated_sequences/{method}/c40/videos/{number:03d}_{partner:03d}.mp4"
            forged = list(film(take_of(corpus.roles[path], FRAMES), 96))
            changed = 0
            for (rgb, labels), (other, relabelled) in zip(genuine, forged, strict=True):
                differs = (rgb != other).any(axis=2)
                changed += differs.sum()
                rows = np.flatnonzero((labels == MOUTH).any(axis=1))
                if "swap" in method.lower() or method == "Deepfakes":
                    outside = (labels == BACKGROUND) | (labels == HAIR)
                    # The blur of a blurry video carries the change a little further.
                    if "blurry" not in role.look:
                        assert not differs[outside].any()
                    np.testing.assert_array_equal(relabelled[outside], labels[outside])
                else:
                    assert not differs[: rows[0] - 12].any()
            assert changed > 40 * FRAMES


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["celebv-hq", "c", "--videos", "2"], "--videos 2 is too few"),
        (["ffpp", "c", "--videos", "7"], "--videos 7: .* even number, 6 or more"),
        (["ffpp", "c", "--videos", "4"], "--videos 4: .* even number, 6 or more"),
        (["lrs2", "c", "--videos", "3", "--size", "65"], "--size 65: give an even number"),
        (["lrs2", "c", "--videos", "3", "--size", "32"], "--size 32: give an even number from 64"),
        (["lrs2", "c", "--videos", "3", "--frames", "31"], "--frames 31: give 32 or more"),
        (["lrs2", "c", "--videos", "3", "--zoom", "0.5"], "--zoom 0.5: give a number from 1 to 2"),
        (["lrs2", "c", "--videos", "3", "--zoom", "nan"], "--zoom nan: give a number from 1 to 2"),
        (["lrs2", "s3://bucket/c", "--videos", "3"], "s3://bucket/c is a URL"),
    ],
)
def test_what_can_not_be_drawn_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["samples", "draw", *arguments]) == 2
    assert re.search(words, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="mine exists: give a new folder"):
        draw_corpus("lrs2", tmp_path / "mine", Request(3, 32, 0), size=64, progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(MarlinError, match="a part of this path is a file"):
        draw_corpus("lrs2", tmp_path / "file/c", Request(3, 32, 0), size=64, progress=False)


def test_a_stopped_run_leaves_nothing(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    words = ["samples", "draw", "lrs2", str(tmp_path / "c"), "--videos", "60", "--workers", "2"]
    run = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *words],
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not (tmp_path / "c").exists()
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert (run.returncode, list(tmp_path.iterdir())) == (75, [])
    assert "stopped by a signal" in said


def test_the_command_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "c"
    words = ["--videos", "3", "--frames", "32", "--size", "64", "--workers", "1"]
    assert main(["samples", "draw", "mosei", str(folder), *words]) == 0
    assert capsys.readouterr().out == (
        f"drew 3 videos of 3 people: {folder}; next: marlin preprocess -c CONFIG corpus.kind=mosei "
        f"corpus.path={folder} preprocess.detector=none preprocess.parser=given\n"
    )
    assert main(["samples", "draw", "mosei", str(folder), *words]) == 2


def _preprocess(tmp_path: Path, written: Sequence[str]) -> str:
    config = tmp_path / "c.yaml"
    config.write_text("preset: ytf-vit-small\ncorpus: {name: drawn}\npreprocess: {clip_frames: 32, min_frames: 32}\n")
    where = f"storage.root={tmp_path}/out"
    assert main(["preprocess", "-c", str(config), where, f"preprocess.size={SIZE}", *written]) == 0
    return f"{tmp_path}/out/datasets/drawn"


@pytest.mark.slow
def test_a_drawn_corpus_becomes_a_dataset_with_its_own_regions_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing may be fetched, and there is nothing in the cache.
    monkeypatch.setenv("MARLIN_CACHE", str(tmp_path / "empty"))
    request = Request(8, FRAMES, 3)
    written: Written = draw_corpus("celebv-hq", tmp_path / "c", request, size=SIZE, workers=1, progress=False)

    store = open_store(_preprocess(tmp_path, written.settings))

    info = json.loads(store.read("dataset.json"))
    assert (info["counts"]["samples"], info["counts"]["quarantined"], info["models"]) == (8, 0, [])
    assert (info["parser"], info["config"]["detector"]) == ("given", "none")
    dataset = load_dataset(store)
    corpus = plan_corpus("celebv-hq", request)
    roles = {Path(path).stem: role for path, role in corpus.roles.items()}
    lists = {
        name: split for split in ("train", "val", "test") for name in corpus.files[f"splits/{split}.txt"].splitlines()
    }
    assert {sample.source: sample.split for sample in dataset.samples} == lists
    for sample in dataset.samples:
        drawn = [labels for _, labels in film(take_of(roles[sample.source], FRAMES), SIZE)]
        np.testing.assert_array_equal(label_maps(store, sample, SIZE), drawn)
        record = json.loads(store.read_range(sample.shard, *sample.parts["json"]))
        assert dict(zip(APPEARANCE, record["labels"]["appearance"], strict=True)) == {
            name: int(name in roles[sample.source].look) for name in APPEARANCE
        }


def test_every_layout_is_offered_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["samples", "draw", "nothing", "x", "--videos", "3"])
    assert ", ".join(LAYOUTS) in capsys.readouterr().err.replace("'", "")


def test_frames_have_the_size_and_rate_asked_for(drawn: dict[str, Path]) -> None:
    [first, *_] = sorted(drawn["lrs2"].rglob("*.mp4"))
    frames = list(read_frames(first))
    assert (len(frames), frames[0].rgb.shape) == (FRAMES, (SIZE, SIZE, 3))
    assert frames[1].time == pytest.approx(1 / 25)
