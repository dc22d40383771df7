"""What is reported of a step, and when."""

import json
import logging
import time
from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch

from pipeline.log import setup_logging
from pipeline.tracking import Tracker
from train.metrics import MetricLog, StepRates


class Notes:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        self.lines.append((step, dict(values)))


def metric_log(notes: Notes, total: int = 9, every: int = 1) -> MetricLog:
    return MetricLog(total, 0, every, cast("Tracker", notes))


def test_a_step_is_reported_while_the_next_one_runs() -> None:
    log = metric_log(notes := Notes())
    log.add(1, {"train/mse": torch.tensor(0.5), "train/lr": 0.1, "train/count": torch.tensor(3)})
    assert notes.lines == []
    log.add(2, {"train/mse": torch.tensor(0.25)})
    assert notes.lines == [(1, {"train/mse": 0.5, "train/lr": 0.1, "train/count": 3.0})]
    log.close()
    assert notes.lines[1:] == [(2, {"train/mse": 0.25})]


def test_steps_between_are_left_out_but_not_the_last() -> None:
    log = metric_log(notes := Notes(), total=5, every=2)
    for step in range(1, 6):
        log.add(step, {"train/mse": float(step)})
    log.close()
    assert [step for step, _ in notes.lines] == [2, 4, 5]


def test_machines_get_a_line_of_json_a_step(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("MARLIN_LOG", "json")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    before = logging.getLogger().handlers[:]
    try:
        setup_logging()
        log = metric_log(Notes())
        log.add(1, {"train/mse": torch.tensor(0.5), "train/skipped_steps": 2})
        log.close()
    finally:
        logging.getLogger().handlers[:] = before
    [line] = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert (found["step"], found["train/mse"]) == (1, 0.5)
    assert found["message"] == "step 1/9 mse 0.5 skipped 2"


def test_rates_are_those_of_a_rank() -> None:
    step_rates = StepRates(clips=64, flops=8_000_000_000_000, peak=2e12, world=4, device=torch.device("cpu"))
    rates = step_rates(2.0)
    assert rates["train/clips_per_s"] == 32
    assert rates["train/tflops"] == 1
    assert rates["train/mfu"] == 0.5
    assert 0.05 < step_rates.memory() < 100
    assert "train/mfu" not in StepRates(64, 8, None, 4, torch.device("cpu"))(2.0)


def test_time_is_counted_between_steps() -> None:
    log = metric_log(Notes())
    log.step_time()
    time.sleep(0.05)
    assert 0.05 <= log.step_time() < 5
