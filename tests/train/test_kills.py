"""A run killed with SIGKILL again and again, and started again each time, ends with the weights of one left alone."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from training import MakeTraining, marlin, start_marlin, weights, write_config

from pipeline.checkpoints import list_checkpoints, list_revisions
from pipeline.config.schema import Config
from pipeline.layout import run_store
from pipeline.tracking import metric_history
from train.status import read_status

EVERY = 4


def moment(cfg: Config, scratch: Path, before: int) -> str:
    """What a killed run was at, by what it left behind."""
    run = run_store(cfg)
    known = {f"{each.prefix}/{entry.name}" for each in list_revisions(run) for entry in each.files}
    attempts = [item.key for item in run.list("checkpoints/") if not item.key.endswith(".manifest.json")]
    if any(key not in known for key in attempts):
        return "uploading"
    if any(path.is_file() and path.parent.name != "mlflow" for path in scratch.rglob("*")):
        return "saving"
    return "training" if len(list_checkpoints(run)) and list_checkpoints(run)[-1].step > before else "starting"


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=[pytest.mark.heavy, pytest.mark.timeout(3600)])])
def test_kills_leave_no_trace(training: MakeTraining, tmp_path: Path, kills: int) -> None:
    settings = (
        f"train.steps={12 * kills + 12}",
        f"train.checkpoint_every={EVERY}",
        "train.keep_last=3",
        "train.launcher=torchrun",
    )
    whole, killed = training("whole", *settings), training("killed", *settings)
    ended = marlin("train", "-c", write_config(whole, tmp_path / "whole.yaml"), timeout=600)
    assert ended.returncode == 0, ended.stderr
    path, scratch = write_config(killed, tmp_path / "killed.yaml"), tmp_path / "scratch"
    dice, moments = random.Random(kills), Counter[str]()
    for _ in range(kills):
        newest = max((checkpoint.step for checkpoint in list_checkpoints(run_store(killed))), default=0)
        with start_marlin(["train", "-c", path]) as process:
            # Half of them some time after the first publication of this start: else most would hit the imports.
            if dice.random() < 0.8:
                while process.poll() is None and _newest(killed) <= newest:
                    time.sleep(0.01)
                time.sleep(dice.uniform(0, 0.5))
            else:
                time.sleep(dice.uniform(0, 8))
            assert process.poll() is None, "the run ended before it was killed: let it take more steps"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        moments[moment(killed, scratch, newest)] += 1
    ended = marlin("train", "-c", path, timeout=600)
    assert ended.returncode == 0, ended.stderr
    print(f"{kills} kills, while {dict(moments)}")
    assert weights(killed, tmp_path / "a") == weights(whole, tmp_path / "b")
    assert read_status(run_store(killed)) == read_status(run_store(whole))
    for name in ("train/mse", "train/critic_loss"):
        assert metric_history(killed, run_store(killed), name) == metric_history(whole, run_store(whole), name)
    left = [item.key for item in run_store(killed).list("checkpoints/") if "manifest" not in item.key]
    known = {f"{each.prefix}/{entry.name}" for each in list_revisions(run_store(killed)) for entry in each.files}
    assert set(left) == known  # nothing of the uploads that were cut off
    assert not [path for path in scratch.rglob("*") if path.is_file()]
    if kills >= 30:
        assert moments["uploading"], moments
        assert moments["saving"], moments


def _newest(cfg: Config) -> int:
    names = [item.key for item in run_store(cfg).list("checkpoints/") if item.key.endswith(".manifest.json")]
    return max((int(name.split("step-")[1][:8]) for name in names), default=0)
