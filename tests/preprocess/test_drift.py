"""A corpus that says something else than when its sources were planned."""

import dataclasses

import pytest

from pipeline.errors import UsageError
from preprocess.corpora import Listing, Source
from preprocess.dataset.drift import check_drift
from preprocess.dataset.plan import Piece, Plan, Root, Unit

A = Source("a", "ann", "a.mp4", split="train", labels={"smile": 1})
B = Source("b", "bob", "b.mp4", split="test")


def _plan(*sources: Source) -> Plan:
    pieces = tuple(Piece(source, None) for source in sources)
    return Plan((Unit("000000", Root("folder", "/raw", False, {}), pieces),))


def test_the_same_corpus_and_a_grown_one_are_fine() -> None:
    assert check_drift(_plan(A), Listing((A, B)), {"/raw"}) == []


def test_another_split_is_refused() -> None:
    moved = dataclasses.replace(B, split="train")
    with pytest.raises(UsageError, match=r"1 source .* as b \(test, now train\).*corpus\.splits"):
        check_drift(_plan(A, B), Listing((A, moved)), {"/raw"})


def test_lists_that_are_forgotten_are_named() -> None:
    lost = dataclasses.replace(B, split=None)
    with pytest.raises(UsageError, match=r"as b \(test, now none\)"):
        check_drift(_plan(B), Listing((lost,)), {"/raw"})


def test_other_labels_and_identities_are_said() -> None:
    changed = dataclasses.replace(A, identity="anna", labels={"smile": 0})
    lines = check_drift(_plan(A, B), Listing((changed, B)), {"/raw"})
    assert [line.partition(" in the")[0] for line in lines] == [
        "1 source (a) changed its identity",
        "1 source (a) changed its labels",
    ]


def test_vanished_sources_are_said_where_they_came_from() -> None:
    assert check_drift(_plan(A, B), Listing(()), {"/elsewhere"}) == []
    [line] = check_drift(_plan(A, B), Listing((A,)), {"/raw"})
    assert line == "/raw: of 2 sources planned from it, 1 source (b) is no longer there"


def test_a_video_of_another_corpus_may_have_the_same_name() -> None:
    other = Source("a", "zoe", "a.mp4", split="test", labels={"smile": 0})
    assert check_drift(_plan(A), Listing((other,)), {"/elsewhere"}) == []
