"""Metric lines: one a step for people or machines, the same values in MLflow."""

import logging
import sys
import time
from collections.abc import Mapping

from torch import Tensor
from tqdm import tqdm

from pipeline.tracking import Tracker

_log = logging.getLogger(__name__)
_SHOWN = {"train/mse": "mse", "train/critic_loss": "critic", "train/lr": "lr", "train/clips_per_s": "clips/s"}
_SHOWN_IF_ANY = {"train/unparsed_frames": "unparsed frames"}


class MetricLog:
    """Reports each step when the next one is under way, so that reading a value never stalls the device.

    Args:
        total: updates of the whole training.
        done: updates already done.
        every: steps between two reports.
        tracker: where the values go, None on ranks that do not report.
    """

    def __init__(self, total: int, done: int, every: int, tracker: Tracker | None) -> None:
        self._total = total
        self._every = every
        self._tracker = tracker
        self._pending: tuple[int, dict[str, Tensor | float]] | None = None
        self._mark = time.perf_counter()
        interactive = tracker is not None and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc="train", unit="step", disable=not interactive)

    def step_time(self) -> float:
        """Seconds since the last call."""
        now = time.perf_counter()
        elapsed, self._mark = now - self._mark, now
        return elapsed

    def add(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Take the values of a finished step (counted from 1) and report the one before."""
        self.flush()
        if self._tracker is not None and (step % self._every == 0 or step == self._total):
            self._pending = (step, dict(values))

    def flush(self) -> None:
        """Report what is still held back."""
        if self._pending is None or self._tracker is None:
            return
        step, raw = self._pending
        self._pending = None
        values = {name: float(value) for name, value in raw.items()}
        self._tracker.log_metrics(values, step)
        shown = {short: f"{values[name]:.4g}" for name, short in _SHOWN.items() if name in values}
        shown |= {short: f"{values[name]:.0f}" for name, short in _SHOWN_IF_ANY.items() if values.get(name)}
        if self._bar.disable:
            text = " ".join(f"{short} {value}" for short, value in shown.items())
            _log.info("step %d/%d %s", step, self._total, text, extra={"fields": {"step": step, **values}})
        else:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Report the last step and end the bar."""
        self.flush()
        self._bar.close()
