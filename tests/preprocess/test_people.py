"""One person, one split: in whatever order the parts of FaceForensics++ are appended."""

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from corpora import put
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.schema import Config, CorpusConfig, PreprocessConfig, TrainConfig
from pipeline.errors import UsageError
from pipeline.storage import Store, open_store
from preprocess.corpora import Source, list_corpus
from preprocess.dataset.plan import read_plan
from preprocess.dataset.planning import extend_plan
from preprocess.dataset.removal import remove_sources
from preprocess.faces.runs import held_out_share

PAIRS = [("000", "003"), ("010", "720"), ("004", "982"), ("953", "974")]
PARTS = ("original", "Deepfakes", "FaceSwap")
SETTINGS: dict[str, Any] = {"config": {}, "models": []}


def _put(folder: Path, parts: Sequence[str], pairs: Sequence[tuple[str, str]] = PAIRS) -> Path:
    """A corpus that holds these parts alone, without lists."""
    for part, (one, other) in itertools.product(parts, pairs):
        original = part == "original"
        top = "original_sequences/youtube" if original else f"manipulated_sequences/{part}"
        for name in (one, other) if original else (f"{one}_{other}", f"{other}_{one}"):
            put(folder / f"{top}/c23/videos/{name}.mp4")
    return folder


def _append(
    store: Store, corpus: Path, parts: Sequence[str], share: float = 0.5, splits: str = ""
) -> dict[str, Source]:
    """Plans parts of a corpus into a dataset; gives all that is planned then, by name."""
    cfg = Config(
        corpus=CorpusConfig(kind="ffpp", path=str(corpus), parts=tuple(parts), splits=splits),
        preprocess=PreprocessConfig(holdout_identities=share),
        train=TrainConfig(steps=1),
    )
    extend_plan(store, cfg, list_corpus(cfg.corpus), SETTINGS, progress=False)
    return _planned(store)


def _planned(store: Store) -> dict[str, Source]:
    return {piece.source.name: piece.source for unit in read_plan(store).plan.units for piece in unit.pieces}


def _held_out(source: Source, share: float) -> bool:
    return held_out_share(source.identity, PreprocessConfig(holdout_identities=share)) == 1


def _torn(planned: dict[str, Source], share: float) -> set[str]:
    """People whose videos are in both splits."""
    sides: defaultdict[str, set[bool]] = defaultdict(set)
    for name, source in planned.items():
        for person in name.rpartition("/")[2].split("_"):
            sides[person].add(_held_out(source, share))
    return {person for person, found in sides.items() if len(found) > 1}


@settings(max_examples=30)
@given(st.permutations(PARTS), st.integers(1, 3), st.floats(0, 1), st.booleans())
def test_no_person_is_in_both_splits_in_any_order(
    order: list[str], first: int, share: float, all_on_disk: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"{folder}/out")
        corpora = [order[:first], *([part] for part in order[first:])]
        for number, parts in enumerate(corpora):
            corpus = _put(Path(folder, "all" if all_on_disk else str(number)), PARTS if all_on_disk else parts)
            try:
                planned = _append(store, corpus, parts, share)
            except UsageError:
                # Originals alone came first, and nothing told which of them are pairs.
                assert corpora[0] == ["original"]
                assert not all_on_disk
                break
            if all_on_disk or parts != ["original"]:
                assert not _torn(planned, share)
        if all_on_disk or corpora[0] != ["original"]:
            assert {source.identity for source in planned.values()} == {min(pair) for pair in PAIRS}


def test_originals_that_were_divided_before_anything_told_the_pairs_are_named(tmp_path: Path) -> None:
    first = _put(tmp_path / "first", ["original"])
    [finding] = [line for line in list_corpus(CorpusConfig(kind="ffpp", path=str(first))).findings if "pairs" in line]
    assert finding.startswith("ffpp: neither split lists nor manipulated videos tell which originals are pairs")
    share = 0.5
    store = open_store(str(tmp_path / "out"))
    planned = _append(store, first, ["original"], share)
    torn = [
        pair for pair in PAIRS if len({_held_out(planned[f"original/c23/{number}"], share) for number in pair}) == 2
    ]
    assert torn, "choose another share"
    before = store.read("plan.json")
    later = _put(tmp_path / "later", ["Deepfakes"])
    with pytest.raises(
        UsageError, match=r"would be in several splits, as in .* \(train\) and .* \(val\): put all of them"
    ):
        _append(store, later, ["Deepfakes"], share)
    assert store.read("plan.json") == before
    # Pairs whose originals happen to be in the same split may come in, under the identity of one of them.
    whole = _put(tmp_path / "whole", ["Deepfakes"], [pair for pair in PAIRS if pair not in torn])
    planned = _append(store, whole, ["Deepfakes"], share)
    assert len(planned) == 2 * len(PAIRS) + 2 * (len(PAIRS) - len(torn))


def test_lists_that_come_later_do_not_move_a_person(tmp_path: Path) -> None:
    corpus = _put(tmp_path / "raw", PARTS)
    store = open_store(str(tmp_path / "out"))
    planned = _append(store, corpus, ["original"])
    other = "train" if _held_out(planned["original/c23/000"], 0.5) else "test"
    put(corpus / f"lists/{other}.json", '[["000", "003"]]')
    with pytest.raises(UsageError, match=r"1 person would be in several splits, as in .*/00[03]"):
        _append(store, corpus, ["Deepfakes"], splits="lists")


def test_nothing_of_a_person_who_was_taken_out_comes_in_again(tmp_path: Path) -> None:
    corpus = _put(tmp_path / "raw", PARTS)
    store = open_store(str(tmp_path / "out"))
    _append(store, corpus, ["original", "Deepfakes"])
    effect = remove_sources(store, [], ["003"], "withdrew")
    assert effect.sources == ("Deepfakes/c23/000_003", "Deepfakes/c23/003_000", "original/c23/003")
    planned = _append(store, corpus, PARTS)
    assert "original/c23/000" in planned
    assert "FaceSwap/c23/010_720" in planned
    assert not [name for name in planned if "003" in name]
