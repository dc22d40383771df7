"""Small training runs over the drawn dataset, in this process and through the command line."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.checkpoints import fetch_checkpoint, list_checkpoints
from pipeline.config.load import dump_config
from pipeline.config.schema import Config
from pipeline.errors import StoppedEarly
from pipeline.layout import run_store
from train.launch import run_training
from train.metrics import MetricLog

REPOSITORY = Path(__file__).resolve().parent.parent
MakeTraining = Callable[..., Config]


def weights(cfg: Config, folder: Path, step: int | None = None) -> dict[str, bytes]:
    """The plain weight files of a published checkpoint, by default the newest."""
    published = {checkpoint.step: checkpoint for checkpoint in list_checkpoints(run_store(cfg))}
    names = ("model.safetensors", "critic.safetensors")
    chosen = published[max(published) if step is None else step]
    fetch_checkpoint(run_store(cfg), chosen, folder, names)
    return {name: (folder / name).read_bytes() for name in names}


def signal_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Send this process a real signal in the middle of the training, when ``step`` updates are done."""
    add = MetricLog.add

    def add_and_signal(self: MetricLog, done: int, values: Any) -> None:
        add(self, done, values)
        if done == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(MetricLog, "add", add_and_signal)


def environment(**extra: str) -> dict[str, str]:
    """What the command runs in: one thread, nothing of an outer launcher."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    }
    return {**kept, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **extra}


def start_marlin(arguments: Sequence[str], **extra: str) -> "subprocess.Popen[str]":
    """Start the command in a process group of its own, as a shell does."""
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**extra),
        cwd=REPOSITORY,
        start_new_session=True,
    )


def marlin(*arguments: str, timeout: float = 240, **extra: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    with start_marlin(arguments, **extra) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def write_config(cfg: Config, path: Path) -> str:
    """Write a configuration where the command finds it."""
    path.write_text(dump_config(cfg), "utf-8")
    return str(path)


def interrupted(cfg: Config, monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Train until a signal comes in the middle of a step."""
    with monkeypatch.context() as patch:
        signal_at(patch, step, number)
        with pytest.raises(StoppedEarly, match=f"stopped after step {step},"):
            run_training(cfg)
