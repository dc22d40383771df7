"""Metric lines: one a step for people or machines, the same values in MLflow."""

import logging
import os
import resource
import sys
import time
from collections.abc import Mapping

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.tracking import Tracker

_log = logging.getLogger(__name__)
_SHOWN = {"train/mse": "mse", "train/critic_loss": "critic", "train/lr": "lr", "train/clips_per_s": "clips/s"}
_SHOWN_IF_ANY = {"train/unparsed_frames": "unparsed frames", "train/skipped_steps": "skipped"}


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
        self._pending: tuple[int, _Values] | None = None
        self._mark = time.perf_counter()
        # A bar is for people; lines of JSON are read by machines.
        interactive = tracker is not None and sys.stderr.isatty() and os.environ.get("MARLIN_LOG") != "json"
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
            self._pending = (step, _Values(values))

    def flush(self) -> None:
        """Report what is still held back."""
        if self._pending is None or self._tracker is None:
            return
        step, pending = self._pending
        self._pending = None
        values = pending.read()
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


class StepRates:
    """How fast steps are, and what they need.

    Args:
        clips: clips of a step, over all ranks.
        flops: operations of a step, over all ranks.
        peak: what one device can do in a second, None where that is not known.
        world: ranks.
        device: this rank's device.
    """

    def __init__(self, clips: int, flops: int, peak: float | None, world: int, device: torch.device) -> None:
        self._clips, self._flops, self._peak, self._world, self._device = clips, flops, peak, world, device

    def __call__(self, seconds: float) -> dict[str, float]:
        """The rates of a step that took so many seconds."""
        rate = self._flops / seconds / self._world
        values = {
            "train/clips_per_s": self._clips / seconds,
            "train/tflops": rate / 1e12,
        }
        return values if self._peak is None else values | {"train/mfu": rate / self._peak}

    def memory(self) -> float:
        """The most memory of this rank so far, in 10⁹ bytes."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


class _Values:
    """Numbers on their way from the device."""

    def __init__(self, values: Mapping[str, Tensor | float]) -> None:
        self._plain = {name: float(value) for name, value in values.items() if not isinstance(value, Tensor)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        self._names = tuple(tensors)
        self._host = torch.empty(0)
        self._copied: torch.cuda.Event | None = None
        if not tensors:
            return
        stacked = torch.stack([value.detach().double() for value in tensors.values()])
        if stacked.is_cuda:
            self._host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
            self._host.copy_(stacked, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        else:
            self._host = stacked

    def read(self) -> dict[str, float]:
        """All values, once the copy is there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._plain | dict(zip(self._names, self._host.tolist(), strict=True))
