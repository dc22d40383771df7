"""What a sweep found, against cases worked out by hand."""

import pytest

from eval.sweep import compare


def test_differences_are_taken_seed_by_seed() -> None:
    first, second, lone = compare({"a": {0: 0.1, 1: 0.5, 2: 0.9}, "b": {0: 0.2, 1: 0.6, 2: 1.0, 3: 0.0}, "c": {1: 0.4}})
    assert (first.variant, first.seeds, first.mean) == ("a", 3, pytest.approx(0.5))
    assert first.std == pytest.approx(0.4)
    assert first.difference is None
    assert first.interval is None
    # The seeds are far apart, the differences are not: 0.1 each, over the three seeds that both have.
    assert second.difference == pytest.approx(0.1)
    assert second.interval == pytest.approx((0.1, 0.1))
    assert second.mean == pytest.approx(0.45)
    assert (lone.difference, lone.interval, lone.std) == (pytest.approx(-0.1), None, None)


def test_the_interval_is_students() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, t of 2 degrees of freedom at 97.5% is 4.302653.
    _, row = compare({"a": {0: 0, 1: 0, 2: 0}, "b": {0: 1, 1: 2, 2: 3}})
    assert row.interval == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-5)


def test_without_a_common_seed_there_is_no_difference() -> None:
    _, row = compare({"a": {0: 0.5}, "b": {1: 0.7}})
    assert (row.difference, row.interval) == (None, None)
