"""How far the stage is: a bar on a terminal, a line now and then in a log."""

import datetime
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from pipeline.text import plural
from preprocess.dataset.plan import Unit

log = logging.getLogger(__name__)

LINE_EVERY = 30.0
"""Seconds between two lines of a log."""

Report = Callable[[Mapping[str, Any]], None]
"""Takes the manifest of each unit as it is committed."""


@contextmanager
def follow(units: tuple[Unit, ...], todo: list[Unit], shown: bool) -> Iterator[Report]:
    """Follows the units to do: share of the video done, rate, time left, and quarantined sources by reason."""
    weights = {unit.name: max(round(unit.seconds), 1) for unit in units}
    left = {unit.name for unit in todo}
    total, start = sum(weights.values()), time.monotonic()
    done = before = total - sum(weights[name] for name in left)
    bar = tqdm(
        desc="preprocess",
        total=total,
        initial=done,
        disable=not (shown and sys.stderr.isatty()),
        bar_format="{desc} {percentage:3.0f}%|{bar:12}| {remaining} left{postfix}",
    )
    quarantined: Counter[str] = Counter()
    frames, next_line = 0, start + LINE_EVERY

    def report(manifest: Mapping[str, Any]) -> None:
        nonlocal frames, next_line, done
        frames += sum(sample["frames"] for sample in manifest["samples"])
        quarantined.update(entry["reason"] for entry in manifest["quarantined"])
        left.discard(manifest["unit"])
        done += weights[manifest["unit"]]
        now = time.monotonic()
        text = f"{frames / max(now - start, 1e-3):.0f} faces/s, bad: {_counts(quarantined)}"
        bar.set_postfix_str(text, refresh=False)
        bar.update(weights[manifest["unit"]])
        if shown and bar.disable and (now >= next_line or not left):
            next_line = now + LINE_EVERY
            eta = datetime.timedelta(seconds=round((total - done) * (now - start) / (done - before)))
            rest = f"{plural(len(left), 'unit')} or {eta} left, " if left else ""
            log.info("preprocess: %.0f%%, %s%s", 100 * done / total, rest, text)

    with bar:
        yield report


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common()) or "none"
