"""The plan of a dataset."""

import json
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from drawn_videos import counting_frames, write_video
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Config, CorpusConfig, PreprocessConfig, TrainConfig
from pipeline.errors import MarlinError, UsageError
from pipeline.storage import open_store
from preprocess.corpora import Source, list_corpus, open_media
from preprocess.dataset import planning
from preprocess.dataset.plan import Piece, Plan, Removal, Root, Unit, read_plan, write_plan
from preprocess.dataset.planning import LEAST_REST, LONGEST, OPEN_END, cut_spans, extend_plan, make_units
from preprocess.dataset.settings import content_settings
from preprocess.decode.video import VideoInfo
from preprocess.quarantine import BadSource

SETTINGS: dict[str, Any] = {"config": {"size": 224}, "models": [{"name": "scrfd", "sha256": "0" * 64}]}
ROOT = Root("folder", "/videos", False, {})


@given(st.floats(0.1, 20000), st.integers(1, 3600), st.none() | st.floats(0, 1e6))
def test_spans_meet_without_overlap_and_reach_the_end(seconds: float, unit_seconds: int, start: float | None) -> None:
    segment = None if start is None else (start, start + seconds)
    pieces = cut_spans(segment, seconds, unit_seconds)
    assert sum(length for _, length in pieces) == pytest.approx(seconds)
    if len(pieces) == 1:
        assert seconds <= unit_seconds + LEAST_REST + 1e-6
        assert pieces[0][0] == segment
        return
    spans = [span for span, _ in pieces if span is not None]
    assert len(spans) == len(pieces)
    assert spans[0][0] == (start or 0.0)
    # A header's length is a little too short at times, a segment's end is meant.
    assert spans[-1][1] == segment[1] if segment else spans[-1][1] > seconds
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(length <= unit_seconds + LEAST_REST + 1e-6 for _, length in pieces)


def test_a_rest_that_may_hold_no_frame_is_no_span_of_its_own() -> None:
    # A measured length is that of the last rounded time stamp and one frame more.
    assert cut_spans(None, 300.0003, 300) == [(None, 300.0003)]
    assert [span for span, _ in cut_spans(None, 600.0003, 300)] == [(0.0, 300.0), (300.0, OPEN_END)]


def test_an_absurd_length_is_not_believed() -> None:
    assert cut_spans(None, LONGEST * 2, 600) == [(None, 0.0)]


@given(st.lists(st.floats(0, 700), max_size=40), st.none() | st.integers(1, 9), st.integers(0, 5))
def test_units_hold_all_pieces_in_order_within_their_bounds(
    lengths: list[float], unit_sources: int | None, first: int
) -> None:
    pieces = [Piece(Source(str(number), "x", "y"), None, seconds) for number, seconds in enumerate(lengths)]
    cfg = PreprocessConfig(unit_sources=unit_sources)
    units = make_units(pieces, ROOT, first, cfg, len(pieces))
    assert [replace(piece, number=0) for unit in units for piece in unit.pieces] == pieces
    assert all([piece.number for piece in unit.pieces] == list(range(len(unit.pieces))) for unit in units)
    assert [unit.name for unit in units] == [f"{first + number:06d}" for number in range(len(units))]
    assert all(len(unit.pieces) <= (unit_sources or 1) for unit in units)
    assert all(unit.seconds <= cfg.unit_seconds or len(unit.pieces) == 1 for unit in units)


def test_large_corpora_get_units_of_several_sources() -> None:
    pieces = [Piece(Source(str(number), "x", "y"), None, 1.0) for number in range(2000)]
    assert len(make_units(pieces, ROOT, 0, PreprocessConfig(), len(pieces))) == 500


def _config(folder: Path, **changes: Any) -> Config:
    return Config(
        corpus=CorpusConfig(path=str(folder / "in")),
        preprocess=PreprocessConfig.model_validate(changes),
        train=TrainConfig(steps=1),
    )


def _extend(folder: Path, settings: dict[str, Any] = SETTINGS, **changes: Any) -> tuple[Unit, ...]:
    cfg = _config(folder, **changes)
    plan, _ = extend_plan(open_store(str(folder / "out")), cfg, list_corpus(cfg.corpus), settings, progress=False)
    return plan.units


def test_new_videos_become_new_units_and_old_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/m.mp4").touch()
    first = _extend(tmp_path)
    write_video(tmp_path / "in/a.mp4", counting_frames(75))
    (tmp_path / "in/m.mp4").unlink()

    second = _extend(tmp_path, unit_seconds=1)

    root = Root("folder", str(tmp_path / "in"), False, {})
    assert first == (Unit("000000", root, (Piece(Source("m.mp4", "m", "m.mp4"), None),)),)
    assert second[:1] == first
    assert [unit.pieces[0].source.name for unit in second] == ["m.mp4", "a.mp4", "a.mp4", "a.mp4"]
    assert [unit.pieces[0].span for unit in second][1:3] == [(0.0, 1.0), (1.0, 2.0)]
    before = (tmp_path / "out/plan.json").read_bytes()
    assert _extend(tmp_path) == second
    assert (tmp_path / "out/plan.json").read_bytes() == before
    [_, unit, *_] = json.loads(before)["units"]
    source = {"name": "a.mp4", "identity": "a", "path": "a.mp4", "cut": [0.0, 1.0], "seconds": 1.0, "number": 0}
    assert unit == {"unit": "000001", "corpus": 0, "sources": [source]}


def test_a_plan_reads_back_as_it_was_written(tmp_path: Path) -> None:
    labelled = Source("b", "bob", "b/", None, "test", {"smile": [0, 1], "mood": 0.5}, "Hello, “you”.", frame_rate=24.0)
    other = Root("mosei", "s3://bucket/mosei", True, {"mood": {"type": "real"}})
    units = (
        Unit("000000", ROOT, (Piece(Source("a", "a", "a.mp4"), None, 2.0),)),
        Unit("000001", other, (Piece(labelled, (1.5, 3.0), 1.5), Piece(Source("c", "c", "c"), None, 9.0))),
    )
    store = open_store(str(tmp_path))
    write_plan(store, Plan(units, (Removal("gone", "consent"),)), SETTINGS, None)
    assert read_plan(store, SETTINGS).plan == Plan(units, (Removal("gone", "consent"),))


def test_a_removed_source_stays_known_and_leaves_its_unit() -> None:
    pieces = tuple(Piece(Source(name, name, name), None, 1.0) for name in "ab")
    plan = Plan((Unit("000000", ROOT, pieces),)).without((Removal("a", "consent"),))
    assert [piece.source.name for unit in plan.units for piece in unit.pieces] == ["b"]
    assert plan.sources() == {"a", "b"}


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/m.mp4").touch()
    _extend(tmp_path)
    other = {"config": {"size": 112}, "models": [{"name": "scrfd", "sha256": "1" * 64}]}
    (tmp_path / "out/units").mkdir()
    (tmp_path / "out/units/000000.json").write_text("{}")
    with pytest.raises(UsageError, match=r"scrfd.*preprocess\.size \(224, now 112\).*corpus\.name"):
        _extend(tmp_path, other)


def test_a_plan_from_which_nothing_was_made_binds_nobody(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/m.mp4").touch()
    first = _extend(tmp_path)
    other = {"config": {"size": 112}, "models": [{"name": "scrfd", "sha256": "1" * 64}]}
    assert _extend(tmp_path, other) == first
    assert read_plan(open_store(str(tmp_path / "out")), other).plan.units == first


class _Awaited:
    """A folder whose probes wait for each other: none answers before `together` of them are under way."""

    def __init__(self, folder: Path, together: int) -> None:
        self.media = open_media("folder", str(folder))
        self.url, self.barrier = self.media.url, threading.Barrier(together, timeout=60)

    def probe(self, source: Source) -> VideoInfo:
        place = self.barrier.wait()
        time.sleep(place / 1000)  # they end in another order than they began in
        if source.name.startswith("b"):
            raise BadSource("unreadable", "it is gone")
        return VideoInfo(float(source.name[1:3]), 25.0)

    def measure(self, source: Source, halt: Event) -> float:
        raise AssertionError("its length is known")


def test_many_sources_are_probed_at_once_and_planned_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(10, 58):
        (tmp_path / f"in/{'ba'[number % 5 > 0]}{number}.mp4").touch()
    monkeypatch.setattr(planning, "open_media", lambda kind, path: _Awaited(Path(path), 24))
    units = _extend(tmp_path)
    names = sorted(path.name for path in (tmp_path / "in").iterdir())
    pieces = [piece for unit in units for piece in unit.pieces]
    assert [piece.source.name for piece in pieces] == names
    # What can't be probed is planned all the same: its unit puts it into quarantine.
    assert [piece.seconds for piece in pieces] == [0.0 if name[0] == "b" else float(name[1:3]) for name in names]


def test_storage_that_fails_ends_the_planning_and_starts_no_further_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(500):
        (tmp_path / f"in/{number:03d}.mp4").touch()
    probed: list[str] = []

    class Down(_Awaited):
        def probe(self, source: Source) -> VideoInfo:
            probed.append(source.name)
            time.sleep(0.01)
            raise MarlinError("the bucket is down")

    monkeypatch.setattr(planning, "open_media", lambda kind, path: Down(Path(path), 1))
    with pytest.raises(MarlinError, match="the bucket is down"):
        _extend(tmp_path)
    assert len(probed) < 250
    assert not (tmp_path / "out").exists()


def test_a_bucket_that_fails_while_a_header_is_read_leaves_no_length_unknown(
    tmp_path: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = open_store(f"{s3_url}/raw")
    raw.write_file("a.mp4", write_video(tmp_path / "a.mp4", counting_frames(75)))
    media = open_media("folder", f"{s3_url}/raw")
    assert media.probe(Source("a", "a", "a.mp4")).seconds == pytest.approx(2.5)

    def down(*arguments: object) -> bytes:
        raise MarlinError("the bucket is down")

    monkeypatch.setattr(type(raw), "read_range", down)
    with pytest.raises(MarlinError, match="the bucket is down"):
        media.probe(Source("a", "a", "a.mp4"))


def test_an_empty_corpus_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(MarlinError, match=r"corpus\.path"):
        _extend(tmp_path)


def test_only_what_decides_content_counts_as_a_setting(models: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.onnx"
    copy.write_bytes(models["scrfd"].read_bytes())
    here = content_settings(PreprocessConfig())
    there = content_settings(
        PreprocessConfig.model_validate({"workers": 3, "max_failed": 0.1, "models": {"detector": str(copy)}})
    )
    assert here["config"] == there["config"]
    assert [model["sha256"] for model in here["models"]] == [model["sha256"] for model in there["models"]]
    assert content_settings(PreprocessConfig(margin=0.5))["config"] != here["config"]


def test_labels_of_several_corpora_are_united() -> None:
    first = {"mood": {"type": "class", "names": ["glad", "sad"]}, "age": {"type": "real", "range": [20.0, 30.0]}}
    second = {"mood": {"type": "class", "names": ["calm", "sad"]}, "age": {"type": "real", "range": [25.0, 80.0]}}
    plan = Plan(
        tuple(Unit(str(n), Root("list", str(n), False, labels), ()) for n, labels in enumerate((first, second)))
    )
    assert plan.labels() == {
        "mood": {"type": "class", "names": ["glad", "sad", "calm"]},
        "age": {"type": "real", "range": [20.0, 80.0]},
    }
    other = Unit("2", Root("list", "2", False, {"age": {"type": "class", "names": ["old"]}}), ())
    with pytest.raises(UsageError, match=r"label age is real in one corpus .* class in another"):
        Plan((*plan.units, other)).labels()
