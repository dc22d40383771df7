"""Times two ways to do the same by turns, so that a busy machine slows both."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def by_turns(sides: Mapping[str, Callable[[], np.ndarray]], rounds: int) -> dict[str, Any]:
    """Figures of two sides that compute the same: seconds of each, how much faster the first is, how far they differ.

    Args:
        sides: by name; each is run once before it is timed.
        rounds: turns of both.
    """
    results = {name: side() for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    first, second = sides
    ratios = [other / own for own, other in zip(seconds[first], seconds[second], strict=True)]
    return {
        **{f"{name}, s": round(statistics.median(times), 3) for name, times in seconds.items()},
        "times as fast": round(statistics.median(ratios), 2),
        "times as fast, each": [round(ratio, 2) for ratio in ratios],
        "largest difference": float(f"{np.abs(results[first] - results[second]).max():.1e}"),
    }
