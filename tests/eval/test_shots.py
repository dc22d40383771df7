"""Subsets of the labels: as large as asked, nested, and with the answers as common as in all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.shots import nested_subsets


@settings(max_examples=40)
@given(
    st.integers(2, 200),
    st.integers(1, 6),
    st.lists(st.floats(0.01, 1), min_size=1, max_size=4),
    st.integers(0, 100),
)
def test_subsets_are_nested_and_as_large_as_asked(rows: int, outputs: int, shares: list[float], seed: int) -> None:
    truth = (np.random.default_rng(seed).random((rows, outputs)) < 0.3).astype(int)
    found = nested_subsets(truth, shares, seed)
    assert set(found) == set(shares)
    larger = set(range(rows))
    for share in sorted(shares, reverse=True):
        chosen = found[share]
        assert len(chosen) == len(set(chosen.tolist())) == max(1, round(share * rows))
        assert set(chosen.tolist()) <= larger
        larger = set(chosen.tolist())


def test_answers_are_as_common_in_a_subset_as_in_all() -> None:
    dice = np.random.default_rng(0)
    truth = (dice.random((2000, 6)) < [0.5, 0.3, 0.1, 0.05, 0.7, 0.2]).astype(int)

    def distance(rows: np.ndarray) -> float:
        return float(np.abs(truth[rows].mean(0) - truth.mean(0)).mean())

    found = [nested_subsets(truth, [0.02, 1], seed) for seed in range(20)]
    by_chance = np.mean([distance(dice.permutation(2000)[:40]) for _ in range(50)])
    assert np.mean([distance(each[0.02]) for each in found]) < by_chance / 2
    assert all(np.array_equal(each[1], np.arange(2000)) for each in found)


def test_a_seed_gives_its_own_subset_each_time() -> None:
    truth = (np.random.default_rng(0).random((100, 3)) < 0.4).astype(int)
    one, again, other = (nested_subsets(truth, [0.1], seed)[0.1].tolist() for seed in (1, 1, 2))
    assert one == again != other


def test_an_answer_too_rare_for_a_share_is_in_as_many_subsets_as_it_should() -> None:
    truth = np.zeros((1000, 2), int)
    truth[:40, 0], truth[::2, 1] = 1, 1
    drawn = [truth[nested_subsets(truth, [0.01], seed)[0.01]].sum(0) for seed in range(400)]
    rare, common = np.mean(drawn, axis=0)
    assert rare == pytest.approx(0.4, abs=0.08)
    assert common == pytest.approx(5, abs=0.1)
