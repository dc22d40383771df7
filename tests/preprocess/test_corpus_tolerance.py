"""Gaps between a corpus and its lists: what is tolerated stays a finding, what is not ends the stage before work."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpora import celebv_info, put, put_csv, put_ffpp, put_lrs2, put_ytf
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.config.load import dump_config
from pipeline.config.schema import Config, CorpusConfig
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store
from pipeline.storage import open_store
from preprocess.corpora import list_corpus
from preprocess.corpora.base import Gap
from preprocess.corpora.tolerance import check_complete, is_wider
from preprocess.dataset.planning import extend_plan

MakeConfig = Callable[..., Config]
SEGMENT = {"video_id": "v", "sentiment": 1, "happy": 0, "sad": 0, "anger": 0, "surprise": 0, "disgust": 0, "fear": 0}


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))), st.data())
def test_exactly_the_share_is_tolerated_and_one_more_is_not(gap: tuple[int, int], data: st.DataObject) -> None:
    lacking, total = gap
    names = tuple(map(str, range(lacking)))
    assert not is_wider(Gap("max_missing", "", names, total), lacking / total)
    assert not is_wider(Gap("max_missing", "", names, total), data.draw(st.floats(lacking / total, 1)))
    if lacking:
        assert is_wider(Gap("max_missing", "", names, total), (lacking - 1) / total)


@pytest.mark.parametrize("hundredths", range(1, 100))
def test_shares_as_people_write_them(hundredths: int) -> None:
    names = tuple(map(str, range(hundredths)))
    assert not is_wider(Gap("max_missing", "", names, 100), float(f"0.{hundredths:02d}"))


def test_nothing_is_no_gap() -> None:
    assert not is_wider(Gap("max_missing", "", (), 0), 0.0)


def celebv(folder: Path) -> str:
    """Two of five described clips have no video, one of four videos is not described, two of three lack a label."""
    info = celebv_info(["a_0", "a_1", "b_0", "gone_0", "gone_1"])
    for clip in ("a_0", "a_1"):
        info["clips"][clip]["attributes"]["action"].pop()
    put(folder / "celebvhq_info.json", json.dumps(info))
    for clip in ("a_0", "a_1", "b_0", "extra_0"):
        put(folder / f"{clip}.mp4")
    return "celebv-hq"


def mosei(folder: Path) -> str:
    """One of four segments has no video, two of five videos have no row, one of three lacks the sentiment."""
    rows = [{**SEGMENT, "clip_id": number} for number in range(4)]
    put_csv(folder / "labels.csv", [*rows[:3], {**rows[3], "sentiment": ""}])
    for name in ("v_1", "v_2", "v_3", "x", "y"):
        put(folder / f"{name}.mp4")
    return "mosei"


def ytf(folder: Path) -> str:
    """Two of three listed videos are not there."""
    put_ytf(folder, ["Ann/0"], [b"1", b"2"])
    put(folder / "train.txt", "Ann/0\nAnn/1\nBo/1\n")
    return "ytf"


def ffpp(folder: Path) -> str:
    """One of the eight names that two pairs stand for is of no video."""
    put_ffpp(folder, {"train": [("000", "003")], "val": [("004", "005")]})
    (folder / "original_sequences/youtube/c23/videos/005.mp4").unlink()
    return "ffpp"


def lrs2(folder: Path) -> str:
    """One of two listed videos is not there."""
    put_lrs2(folder, {"train": ["1/1", "1/2"]})
    (folder / "mvlrs_v1/main/1/2.mp4").unlink()
    return "lrs2"


def table(folder: Path) -> str:
    """Three of four rows have no age."""
    put_csv(folder / "list.csv", [{"path": f"{n}.mp4", "age": n if n == 2 else ""} for n in range(4)])
    return "list"


def folder_of_videos(folder: Path) -> str:
    """One of three listed videos is not there."""
    for name in ("a", "b"):
        put(folder / f"{name}.mp4")
    put(folder / "val.txt", "a.mp4\nb.mp4\nc.mp4\n")
    return "folder"


@pytest.mark.parametrize(
    ("layout", "limit", "share", "said"),
    [
        (celebv, "max_missing", (2, 5), "2 of 5 described clips have no video, as gone_0, gone_1"),
        (celebv, "max_unlabelled", (2, 3), "2 of 3 videos have no label action, as a_0, a_1"),
        (mosei, "max_missing", (1, 4), "1 of 4 labelled segments has no video, as v_0"),
        (mosei, "max_unlabelled", (2, 5), "2 of 5 videos have no label and are left out, as x.mp4, y.mp4"),
        (ytf, "max_missing", (2, 3), "2 of 3 entries of split lists are not in the corpus, as Ann/1, Bo/1"),
        (ffpp, "max_missing", (1, 4), "1 of 4 listed videos of original is not there, as 005"),
        (lrs2, "max_missing", (1, 2), "1 of 2 entries of split lists is not in the corpus, as 1/2"),
        (table, "max_unlabelled", (3, 4), "3 of 4 videos have no label age, as 0.mp4, 1.mp4, 3.mp4"),
        (folder_of_videos, "max_missing", (1, 3), "1 of 3 entries of split lists is not in the corpus, as c.mp4"),
    ],
)
def test_each_layout_on_both_sides_of_the_share(
    layout: Callable[[Path], str], limit: str, share: tuple[int, int], said: str, tmp_path: Path
) -> None:
    kind, (lacking, total) = layout(tmp_path), share
    path = str(tmp_path / "list.csv" if kind == "list" else tmp_path)
    splits = "." if kind in ("ytf", "folder") else ""
    common: dict[str, Any] = {"kind": kind, "path": path, "splits": splits, "max_missing": 1, "max_unlabelled": 1}
    listing = list_corpus(CorpusConfig.model_validate(common))
    check_complete(CorpusConfig.model_validate({**common, limit: lacking / total}), listing)
    below = (lacking - 0.5) / total
    with pytest.raises(MarlinError) as caught:
        check_complete(CorpusConfig.model_validate({**common, limit: below}), listing)
    assert str(caught.value).startswith(f"{kind}: {said}, more than corpus.{limit}={below:g}: ")
    assert str(caught.value).endswith(", or raise it")


def test_names_of_other_parts_are_not_missing(tmp_path: Path) -> None:
    put_ffpp(tmp_path, {"train": [("000", "003")]})
    for parts in (["original"], ["FaceSwap"], ["original", "Deepfakes"]):
        cfg = CorpusConfig.model_validate({"kind": "ffpp", "path": str(tmp_path), "parts": parts, "max_missing": 0})
        listing = list_corpus(cfg)
        check_complete(cfg, listing)
        assert not any("listed" in line for line in listing.findings)


def test_too_many_gaps_end_the_command_before_any_work(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = {"kind": celebv(tmp_path / "in"), "path": str(tmp_path / "in"), "max_missing": 0.3}
    cfg = make_config(tmp_path / "in").model_copy(update={"corpus": CorpusConfig.model_validate(corpus)})
    path = put(tmp_path / "run.yaml", dump_config(cfg))
    assert main(["preprocess", "-c", str(path)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == (
        "marlin: celebv-hq: 2 of 5 described clips have no video, as gone_0, gone_1, more than corpus.max_missing=0.3: "
        "check corpus.path and its lists, or raise it; celebv-hq: 2 of 3 videos have no label action, as a_0, a_1, "
        "more than corpus.max_unlabelled=0.5: mend the labels, or raise it"
    )
    assert any("1 of 4 videos is not described" in line for line in told[:-1])  # as a finding
    assert not list(dataset_store(cfg).list())


def test_what_was_planned_before_is_not_asked_again(make_config: MakeConfig, tmp_path: Path) -> None:
    corpus = tmp_path / "in"
    settings: dict[str, Any] = {"config": {}, "models": []}
    store = open_store(str(tmp_path / "out"))

    def extend() -> int:
        given = {"kind": "celebv-hq", "path": str(corpus), "max_missing": 0.4, "max_unlabelled": 1}
        cfg = make_config(corpus).model_copy(update={"corpus": CorpusConfig.model_validate(given)})
        return extend_plan(store, cfg, list_corpus(cfg.corpus), settings, progress=False)[1]

    celebv(corpus)
    assert extend() == 3
    (corpus / "a_0.mp4").unlink()  # raw videos may go once their dataset is made
    assert extend() == 0
