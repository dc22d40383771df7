"""Means over videos and how sure they are, drawing people with all their videos."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.scores import people_draws, percentile_ends

_FEWEST_PEOPLE = 2  # draws of one person are all the same


@dataclass(frozen=True)
class Margin:
    """A mean, and the ends of its 95% interval; of one person, or without draws, there is none."""

    mean: float
    interval: tuple[float, float] | None


def margin(values: Sequence[float], people: Sequence[str], *, resamples: int, seed: int) -> Margin:
    """Mean of a value of each video, and its percentile bootstrap interval.

    Args:
        values: one for each video.
        people: who is seen in each.
        resamples: draws; 0 gives no interval.
        seed: of the draws.
    """
    mean = float(np.mean(values))
    if not resamples or len(set(people)) < _FEWEST_PEOPLE:
        return Margin(mean, None)
    numbers = np.asarray(values)
    low, high = percentile_ends([float(numbers[rows].mean()) for rows in people_draws(people, resamples, seed)])
    return Margin(mean, (low, high))
