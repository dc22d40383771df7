"""Two ranks, however they are started: the same losses. And ranks that do not come, or do not answer."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from drawn import Drawn
from drawn_runs import small_config
from ranks import finish, free_port, places, start_ranks
from torch.distributed import HashStore
from training import REPOSITORY, environment, marlin, write_config

from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import run_store
from pipeline.tracking import metric_history
from train.preflight import meet, ranks_text
from train.preflight import places as places_text
from train.status import read_status
from train.world import World

MakePair = Callable[[str], tuple[Config, str]]
VERB = ["-m", "pipeline.cli", "train", "-c"]


@pytest.fixture
def pair(tmp_path: Path, drawn: Drawn) -> MakePair:
    """A small run for two ranks, and its file."""

    def make(name: str) -> tuple[Config, str]:
        cfg = small_config(
            tmp_path / "storage",
            f"run.name={name}",
            f"data.dataset='{drawn.store.url}'",
            f"launch.scratch='{tmp_path / 'scratch'}'",
            *("launch.threads=1", "train.processes=2", "train.steps=3", "train.val_clips=0"),
            *("train.global_batch=4", "train.micro_batch=2", "train.base_lr=0.032", "data.streams=4"),
        )
        return cfg, write_config(cfg, tmp_path / f"{name}.yaml")

    return make


def launch(command: Sequence[str], **extra: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, env=environment(**extra), cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.slow
def test_all_launchers_train_the_same(pair: MakePair) -> None:
    def losses(cfg: Config) -> list[tuple[int, float]]:
        status = read_status(run_store(cfg))
        assert status is not None
        assert (status.state, status.step) == ("done", 3)
        return metric_history(cfg, run_store(cfg), "train/mse")

    cfg, path = pair("marlin")
    ended = marlin("train", "-c", path)
    assert ended.returncode == 0, ended.stderr
    expected = losses(cfg)

    cfg, path = pair("torchrun")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    started = launch([sys.executable, *torchrun, *VERB, path])
    assert started.returncode == 0, started.stderr
    assert losses(cfg) == expected

    cfg, path = pair("deepspeed")
    deepspeed = ["-m", "deepspeed.launcher.runner", "--num_gpus=2", f"--master_port={free_port()}", "--module"]
    started = launch([sys.executable, *deepspeed, *VERB[1:], path], DS_ACCELERATOR="cpu")
    assert started.returncode == 0, started.stderr
    assert losses(cfg) == expected

    cfg, path = pair("srun")
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_TASKS_PER_NODE": "2"}
    step |= {"SLURM_STEP_NODELIST": "anywhere", "SLURM_JOB_ID": free_port(), "SLURM_STEP_ID": "0"}
    tasks = [{**step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in (0, 1)]
    for code, err in finish(start_ranks([*VERB, path], tasks)):
        assert code == 0, err
    assert losses(cfg) == expected


@pytest.mark.slow
def test_a_rank_that_does_not_come_is_named(pair: MakePair) -> None:
    cfg, path = pair("alone")
    begun = time.monotonic()
    [(code, err)] = finish(start_ranks([*VERB, path, "train.start_timeout=3"], places(2)[:1]))
    assert code == 1
    assert time.monotonic() - begun < 60
    assert err.splitlines()[-1] == (
        f"marlin: rank 1 of 2 did not start within 3 s (train.start_timeout), "
        f"while rank 0 on {socket.gethostname()} did: "
        "look at the logs and machines of the missing"
    )
    status = read_status(run_store(cfg))
    assert status is not None
    assert (status.state, status.usage) == ("failed", False)


@pytest.mark.slow
def test_a_rank_that_does_not_find_the_first_says_where_it_looked(pair: MakePair) -> None:
    _, path = pair("lost")
    lost = places(2)[1]
    [(code, err)] = finish(start_ranks([*VERB, path, "train.start_timeout=3"], [lost]))
    assert code == 1
    assert (
        f"did not reach rank 0 at 127.0.0.1:{lost['MASTER_PORT']} within 3 s (train.start_timeout)"
        in err.splitlines()[-1]
    )


MUTE = """
import sys, time
import train.join
train.join.exchange = lambda *ignored: time.sleep(30)
train.join.join_world(4)
"""


@pytest.mark.slow
def test_a_link_without_an_answer_is_named(pair: MakePair) -> None:
    """Rank 1 joins the group and then says nothing, as behind a firewall."""
    _, path = pair("mute")
    where = places(2)
    speaking = start_ranks([*VERB, path, "train.start_timeout=4"], where[:1])
    mute = start_ranks(["-c", MUTE], where[1:])
    try:
        [(code, err)] = finish(speaking)
    finally:
        mute[0].kill()
        mute[0].communicate()
    assert code == 1
    host = socket.gethostname()
    assert f"no answer over the link from rank 1 ({host}) to rank 0 ({host}) within 4 s" in err.splitlines()[-1]


def test_two_ranks_of_three_name_the_third() -> None:
    store = HashStore()
    first, second = (World(rank, 3, rank, torch.device("cpu")) for rank in (0, 1))
    store.set("host/1", "elsewhere")
    with pytest.raises(MarlinError, match=r"^rank 2 of 3 did not start within 1 s .*, while rank 0 on .*elsewhere did"):
        meet(store, first, 1)
    store.set("host/2", "there")
    assert meet(store, second, 1)[2] == "there"


def test_places_in_words() -> None:
    assert places_text({0: "a", 1: "a", 2: "b"}) == "ranks 0, 1 on a, rank 2 on b"
    assert ranks_text(list(range(12))) == "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 4 more"
