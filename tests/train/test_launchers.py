"""A launcher on each node, told by the variables of SLURM or of torchrun, as two commands of this machine."""

import json
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from ranks import finish, free_port, start_ranks
from training import MakeTraining, write_config

from pipeline.checkpoints import list_checkpoints
from pipeline.layout import run_store
from train.status import read_status

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


def nodes() -> list[dict[str, str]]:
    step = {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [{**step, **meeting, "SLURM_NODEID": str(node)} for node in range(2)]


def wait_for_a_step(launcher: "subprocess.Popen[str]") -> None:
    assert launcher.stderr is not None
    for line in launcher.stderr:
        if line.startswith("{") and json.loads(line).get("step") == 3:
            return


def test_a_signal_to_all_processes_saves_once_and_the_launchers_continue(
    training: MakeTraining, tmp_path: Path
) -> None:
    cfg = training(
        "launchers",
        *("launch.slurm.launcher=node", "train.launcher=torchrun", "train.steps=400", "train.checkpoint_every=400"),
        "train.micro_batch=2",
    )
    command = ["-m", "pipeline.cli", "--log", "json", "train", "-c", write_config(cfg, tmp_path / "run.yaml")]
    launchers = start_ranks(command, nodes())
    try:
        wait_for_a_step(launchers[0])
        for launcher in launchers:
            tree = psutil.Process(launcher.pid)
            for process in [tree, *tree.children(recursive=True)]:  # as SLURM does
                process.send_signal(signal.SIGUSR2)
    finally:
        ended = finish(launchers)
    assert [status for status, _ in ended] == [75, 75], ended
    run = run_store(cfg)
    saved = read_status(run)
    assert saved is not None
    assert (saved.state, [each.step for each in list_checkpoints(run)]) == ("resumable", [saved.step])
    ended = finish(start_ranks([*command, f"train.steps={saved.step + 1}"], nodes()))
    assert [status for status, _ in ended] == [0, 0], ended
    assert f"resumed from checkpoint step-{saved.step:08d}.r0" in ended[0][1]


def ranks_of(launcher: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(launcher.pid).children(recursive=True)


def named() -> list[dict[str, str]]:
    meeting = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": free_port()}
    return [{**meeting, "PET_NODE_RANK": str(node)} for node in range(2)]


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize(
    ("how", "end"),
    [
        ("node", (75, "resumable", "the ranks of another node are gone without a word")),  # a machine that is lost
        ("aborted", (75, "resumable", "another node may be gone (rank")),  # the same, and NCCL ends the other's rank
        ("rank", (1, "failed", "died of SIGKILL")),  # a rank, whose launcher tells
    ],
)
def test_a_lost_node_is_told_from_a_rank_that_died(
    training: MakeTraining, tmp_path: Path, lost: int, how: str, end: tuple[int, str, str]
) -> None:
    options = ("train.launcher=torchrun", "train.steps=400", "train.checkpoint_every=400", "train.micro_batch=2")
    cfg = training(f"lost-{lost}-{how}", *options)
    command = ["-m", "pipeline.cli", "--log", "json", "train", "-c", write_config(cfg, tmp_path / "run.yaml")]
    launchers = start_ranks(command, named())
    try:
        wait_for_a_step(launchers[0])
        theirs, others = ranks_of(launchers[lost]), ranks_of(launchers[1 - lost])
        if how == "rank":
            for rank in theirs:
                rank.kill()
        else:
            launchers[lost].kill()  # its ranks die with it
        if how == "aborted":
            for rank in others:
                rank.send_signal(signal.SIGABRT)
    finally:
        ended = finish(launchers)
    status, state, reason = end
    assert ended[1 - lost][0] == status, ended
    found = read_status(run_store(cfg))
    assert found is not None
    assert found.state == state
    assert reason in found.reason
