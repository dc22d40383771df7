"""The plan of a dataset."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from drawn_videos import counting_frames, write_video
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import CorpusConfig, PreprocessConfig
from pipeline.errors import MarlinError, UsageError
from pipeline.storage import open_store
from preprocess.corpora import open_corpus
from preprocess.plan import Piece, Unit, cut_spans, make_units, update_plan
from preprocess.settings import content_settings

SETTINGS: dict[str, Any] = {"config": {"size": 224}, "models": [{"name": "scrfd", "sha256": "0" * 64}]}


@given(st.floats(0.1, 20000), st.integers(1, 3600))
def test_spans_meet_without_overlap_and_reach_the_end(seconds: float, unit_seconds: int) -> None:
    spans = cut_spans(seconds, unit_seconds)
    if seconds <= unit_seconds:
        assert spans == [None]
        return
    known = [span for span in spans if span is not None]
    assert len(known) == len(spans) >= 2
    assert known[0][0] == 0
    assert known[-1][1] > seconds
    assert all(before[1] == after[0] for before, after in pairwise(known))
    assert all(end - start == unit_seconds for start, end in known[:-1])


def test_units_take_whole_sources_together_and_spans_alone() -> None:
    pieces = [Piece("a", None), Piece("b", None), Piece("c", None), Piece("d", (0.0, 5.0)), Piece("d", (5.0, 9.0))]
    units = make_units(pieces, first=7, unit_sources=2)
    assert units == [
        Unit("000007", (pieces[0], pieces[1])),
        Unit("000008", (pieces[2],)),
        Unit("000009", (pieces[3],)),
        Unit("000010", (pieces[4],)),
    ]


def _update(folder: Path, settings: dict[str, Any] = SETTINGS, **changes: Any) -> list[Unit]:
    corpus = open_corpus(CorpusConfig(path=str(folder / "in")))
    cfg = PreprocessConfig.model_validate(changes)
    return update_plan(open_store(str(folder / "out")), corpus, cfg, settings, progress=False)


def test_new_videos_become_new_units_and_old_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/m.mp4").touch()
    first = _update(tmp_path)
    write_video(tmp_path / "in/a.mp4", counting_frames(75))
    (tmp_path / "in/m.mp4").unlink()

    second = _update(tmp_path, unit_seconds=1)

    assert first == [Unit("000000", (Piece("m.mp4", None),))]
    assert second[:1] == first
    assert [unit.pieces[0].source for unit in second] == ["m.mp4", "a.mp4", "a.mp4", "a.mp4"]
    assert [unit.pieces[0].span for unit in second][1:3] == [(0.0, 1.0), (1.0, 2.0)]
    before = (tmp_path / "out/plan.json").read_bytes()
    assert _update(tmp_path) == second
    assert (tmp_path / "out/plan.json").read_bytes() == before
    stored = json.loads(before)
    assert stored["schema"] == 1
    assert stored["units"][1] == {"unit": "000001", "sources": [{"source": "a.mp4", "span": [0.0, 1.0]}]}


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/m.mp4").touch()
    _update(tmp_path)
    other = {"config": {"size": 112}, "models": [{"name": "scrfd", "sha256": "1" * 64}]}
    with pytest.raises(UsageError, match=r"scrfd.*preprocess\.size \(224, now 112\).*corpus\.name"):
        _update(tmp_path, other)


def test_an_empty_corpus_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(MarlinError, match=r"corpus\.path"):
        _update(tmp_path)


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
