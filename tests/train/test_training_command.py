"""The training command: signals, killed processes, several ranks."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from drawn import drawn_unparsed
from training import (
    REPOSITORY,
    MakeTraining,
    environment,
    marlin,
    start_marlin,
    write_config,
)

from pipeline.checkpoints import list_checkpoints
from pipeline.layout import run_store
from pipeline.tracking import metric_history
from train.launch import run_training
from train.status import read_status

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_the_command_stops_on_a_signal_and_continues(training: MakeTraining, tmp_path: Path) -> None:
    cfg = training("cli", "train.launcher=torchrun", "train.steps=400", "train.checkpoint_every=400")
    path = write_config(cfg, tmp_path / "cli.yaml")
    with start_marlin(["--log", "json", "train", "-c", path]) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line).get("step") == 3:
                break
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "the same command continues" in err
    assert "Traceback" not in err
    status = read_status(run_store(cfg))
    assert status is not None
    assert status.state == "resumable"
    assert status.step >= 3
    assert [checkpoint.step for checkpoint in list_checkpoints(run_store(cfg))] == [status.step]
    rest = marlin("train", "-c", path, f"train.steps={status.step + 2}")
    assert rest.returncode == 0, rest.stderr
    assert f"resumed from checkpoint step-{status.step:08d}.r0" in rest.stderr
    assert f"trained {status.step + 2} steps" in rest.stdout


@pytest.mark.slow
def test_a_killed_rank_is_named_and_the_next_start_continues(training: MakeTraining, tmp_path: Path) -> None:
    cfg = training("killed", "train.launcher=torchrun", "train.steps=400", "train.checkpoint_every=2")
    path = write_config(cfg, tmp_path / "killed.yaml")
    with start_marlin(["--log", "json", "train", "-c", path]) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "published checkpoint" in json.loads(line)["message"]:
                break
        os.kill(_worker_of(process.pid), signal.SIGKILL)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert err.splitlines()[-1] == "marlin: rank 0 died of SIGKILL (out of memory?); the next start continues the run"
    step = list_checkpoints(run_store(cfg))[-1].step
    rest = marlin("train", "-c", path, f"train.steps={step + 1}")
    assert rest.returncode == 0, rest.stderr


@pytest.mark.slow
def test_a_killed_launcher_takes_its_ranks_with_it(training: MakeTraining, tmp_path: Path) -> None:
    cfg = training("orphan", "train.launcher=torchrun", "train.steps=100000")
    path = write_config(cfg, tmp_path / "orphan.yaml")
    with start_marlin(["--log", "json", "train", "-c", path]) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "published checkpoint" in json.loads(line)["message"]:
                break
        worker = psutil.Process(_worker_of(process.pid))
        process.kill()
        gone, alive = psutil.wait_procs([worker], timeout=60)
        for orphan in alive:
            orphan.kill()
    assert gone


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_rank_whose_launcher_is_gone_before_it_looks_ends_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train.worker", str(tmp_path / "absent.yaml")]
    gone = {"MARLIN_LAUNCHER_PID": "1"}
    ended = subprocess.run(command, env=environment(**gone), capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (1, "")  # not a word of the configuration that is not there


@pytest.mark.slow
def test_a_signal_during_the_start_is_resumable(training: MakeTraining, tmp_path: Path) -> None:
    cfg = training("early", "train.launcher=torchrun")
    path = write_config(cfg, tmp_path / "early.yaml")
    with start_marlin(["train", "-c", path]) as process:
        worker = 0
        while not worker and process.poll() is None:
            worker = _worker_of(process.pid)
        os.kill(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "Traceback" not in err
    assert read_status(run_store(cfg)).state == "resumable"  # type: ignore[union-attr]


@pytest.mark.slow
def test_user_errors_of_the_ranks_reach_the_user_in_one_line(training: MakeTraining, tmp_path: Path) -> None:
    cfg = training("wrong", "train.launcher=torchrun", "data.streams=3")
    failed = marlin("train", "-c", write_config(cfg, tmp_path / "wrong.yaml"))
    assert failed.returncode == 2, failed.stderr
    lines = [line for line in failed.stderr.splitlines() if line.startswith("marlin: ")]
    assert len(lines) == 1
    assert "data.streams=3" in lines[0]
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_two_ranks_compute_what_one_computes(training: MakeTraining, tmp_path: Path) -> None:
    unparsed = drawn_unparsed(tmp_path / "unparsed")
    settings = (f"data.dataset='{unparsed.store.url}'", "train.steps=4", "train.micro_batch=2", "train.zero_stage=2")
    one, two = training("one", *settings), training("two", *settings, "train.processes=2")
    run_training(one)
    path = write_config(
        two.model_copy(update={"train": two.train.model_copy(update={"launcher": "torchrun"})}), tmp_path / "two.yaml"
    )
    finished = marlin("train", "-c", path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("epoch 0 leaves out 7 of 19") == 1
    for name in ("train/mse", "train/critic_loss", "train/unparsed_frames"):
        alone = [value for _, value in metric_history(one, run_store(one), name)]
        shared = [value for _, value in metric_history(two, run_store(two), name)]
        assert shared == pytest.approx(alone, rel=1e-5), name
    newest = list_checkpoints(run_store(two))[-1]
    for rank in (0, 1):
        assert any(f"rank_{rank}_" in entry.name for entry in newest.files)
    again = marlin("train", "-c", path, "train.steps=5")
    assert again.returncode == 0, again.stderr
    assert "resumed from checkpoint step-00000004.r0" in again.stderr


@pytest.mark.slow
def test_nodes_that_do_not_fit_the_streams_are_refused(training: MakeTraining, tmp_path: Path) -> None:
    """Three ranks that are told, as torchrun does on three machines, that each has a machine of its own."""
    cfg = training("nodes", "train.global_batch=12")
    path = write_config(cfg, tmp_path / "nodes.yaml")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    place |= {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "train.worker", path],
            env=environment(**place, RANK=str(rank)),
            cwd=REPOSITORY,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(3)
    ]
    try:
        assert [rank.wait(120) for rank in ranks] == [2, 2, 2]
    finally:
        for rank in ranks:
            rank.kill()
    status = read_status(run_store(cfg))
    assert status is not None
    assert status.usage
    assert "3 nodes do not fit: each must own whole streams, of 4" in status.reason
    assert not list_checkpoints(run_store(cfg))


def _worker_of(launcher: int) -> int:
    """Process id of the rank that a launcher started, 0 while there is none."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (entry / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == launcher and b"train.worker" in command:
            return int(entry.name)
    return 0
