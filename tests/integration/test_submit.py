"""`marlin submit slurm` on a real SLURM of two nodes: `make test-cluster`, as root, with slurm-wlm and munge."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from integration.slurm_cluster import Cluster, Job, missing_programs, run_cluster, wait_until
from killed_runs import content, make_corpus
from training import marlin

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ONE_CORE = {"cpus": 1, "memory": "0", "minutes": 10}
SMALL = {
    "preset": "demo",
    "data": {"streams": 2},
    "train": {
        "steps": 4,
        "global_batch": 2,
        "micro_batch": 1,
        "checkpoint_every": 2,
        "val_every": 4,
        "val_clips": 2,
        "start_timeout": 60,
        "grace": 25,
    },
    "eval": {"tasks": ["reconstruction"], "poll_seconds": 2},
}
# Training alone, long enough to be disturbed: the time limit's signal may come half a minute late.
STEPS = 40
ALONE = {
    "data": {"source": "synthetic", "streams": 2},
    "train": {**SMALL["train"], "steps": STEPS, "global_batch": 8, "checkpoint_every": 4, "val_clips": 0},
}
MOMENT = f"step 6/{STEPS}"


@pytest.fixture(scope="module")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if missing := missing_programs():
        pytest.fail(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.fail("munged, slurmctld and slurmd must be started by root")
    with run_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    yield running_cluster
    running_cluster.cancel_all()


class Submitted:
    """A run submitted with the command from a configuration file of its own."""

    def __init__(
        self, cluster: Cluster, folder: Path, *options: str, launcher: str = "task", jobs: int = 1, **sections: object
    ) -> None:
        self.cluster = cluster
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        slurm = {"preprocess": {**ONE_CORE, "nodes": 2}, "train": {**ONE_CORE, "nodes": 2, "gpus": 1}, "slack": 60}
        slurm |= {"eval": {**ONE_CORE, "gpus": 0, "jobs": jobs}, "scratch": str(folder / "scratch")}
        slurm |= {"launcher": launcher, "setup": ['echo "GPUs of node: ${SLURM_GPUS_ON_NODE:-0}"']}
        (folder / "scratch").mkdir()
        tree = {**SMALL, "storage": {"root": str(folder / "data")}, "launch": {"slurm": slurm}, **sections}
        self.config = folder / "run.yaml"
        self.config.write_text(yaml.safe_dump(tree))
        printed = self.marlin("slurm", "-c", str(self.config), *options)
        self.jobs = dict(re.findall(r"^(\w+): job (\d+)", printed, flags=re.M))

    def marlin(self, verb: str, *arguments: str) -> str:
        done = marlin("submit", verb, *arguments, **self.cluster.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def status(self) -> str:
        return " ".join(self.marlin("status", str(self.config)).split())

    def log(self, stage: str) -> str:
        logs = sorted(self.folder.glob(f"data/slurm/demo/*/{stage}-*.log"))
        return "".join(path.read_text() for path in logs)

    def wait_for(self, stage: str, text: str) -> None:
        wait_until(lambda: text in self.log(stage), f"'{text}' in the log of {stage}", timeout=300)

    def wait(self, stage: str) -> Job:
        return self.cluster.wait(self.jobs[stage], "COMPLETED", "FAILED", "CANCELLED", timeout=400)

    def weights(self) -> str:
        """The sha256 of the final model."""
        (path,) = (self.folder / "data/runs/demo/checkpoints").glob(f"step-{STEPS:08}/*/model.safetensors")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def assert_finished_as(self, undisturbed: str) -> None:
        """Disturbed once, continued, and ended with the same weights as a run that was left alone."""
        job = self.wait("train")
        log = self.log("train")
        assert (job.state, job.restarts) == ("COMPLETED", 1), log
        assert "resumed from checkpoint" in log
        assert self.weights() == undisturbed
        assert list((self.folder / "scratch").iterdir()) == []


@pytest.fixture(scope="module")
def undisturbed(running_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of a run that nothing happens to."""
    run = Submitted(running_cluster, tmp_path_factory.mktemp("undisturbed"), "--stage", "train", **ALONE)
    job = run.wait("train")
    assert (job.state, job.restarts) == ("COMPLETED", 0), run.log("train")
    return run.weights()


@pytest.fixture
def training(cluster: Cluster, undisturbed: str, tmp_path: Path) -> Submitted:
    """The same run again, at the moment of its disturbance."""
    run = Submitted(cluster, tmp_path, "--stage", "train", **ALONE)
    run.wait_for("train", MOMENT)
    return run


def test_the_whole_chain_runs_on_two_nodes(
    cluster: Cluster, samples: dict[str, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    corpus = make_corpus(tmp_path / "it's raw", samples["WolfgangLanger_Pexels"], 4, 40)
    odd = tmp_path / 'a b\'s "$HOME" 50%j; `x`'
    faces = {"corpus": {"path": str(corpus), "kind": "folder", "name": "faces"}}
    short = {"clip_frames": 16, "min_frames": 16, "holdout": 0.4}
    run = Submitted(cluster, odd, jobs=2, **faces, preprocess=short)
    for stage in ("preprocess", "train", "eval"):
        job = run.wait(stage)
        assert (job.state, job.restarts) == ("COMPLETED", 0), run.log(stage)
    assert run.log("preprocess").count("Ray runtime started") == 2
    assert "GPUs of node: 1" in run.log("train")
    results = {path.parent.name for path in (odd / "data/runs/demo/evals").glob("*/reconstruction.json")}
    assert results == {"step-00000002.r0", "step-00000004.r0"}
    said = run.status
    assert "done after 4 steps" in said
    assert said.count("COMPLETED") == 3
    assert f"eval job {run.jobs['eval']}: 2 COMPLETED" in said
    assert list((odd / "scratch").iterdir()) == []


def test_preprocessing_told_to_stop_continues_to_the_same_bytes(
    cluster: Cluster, samples: dict[str, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    corpus = make_corpus(tmp_path / "raw", samples["WolfgangLanger_Pexels"], 6, 40)
    faces = {"corpus": {"path": str(corpus), "kind": "folder", "name": "faces"}}
    short = {"clip_frames": 16, "min_frames": 16, "unit_sources": 1}
    whole, told = (
        Submitted(cluster, tmp_path / name, "--stage", "preprocess", **faces, preprocess=short)
        for name in ("whole", "told")
    )
    units = tmp_path / "told/data/datasets/faces/units"
    wait_until(lambda: units.is_dir() and any(units.iterdir()), "a unit is there", timeout=200)
    cluster.command("scancel", "--signal=USR2", told.jobs["preprocess"])  # as SLURM does when the time is nearly up
    for run, restarts in ((whole, 0), (told, 1)):
        job = run.wait("preprocess")
        assert (job.state, job.restarts) == ("COMPLETED", restarts), run.log("preprocess")
    assert "stopped by a signal" in told.log("preprocess")
    assert content(tmp_path / "told/data/datasets") == content(tmp_path / "whole/data/datasets")


def test_a_requeued_run_ends_with_the_same_weights(training: Submitted, undisturbed: str) -> None:
    training.cluster.command("scontrol", "requeue", training.jobs["train"])
    training.assert_finished_as(undisturbed)


def test_a_preempted_run_ends_with_the_same_weights(training: Submitted, undisturbed: str, tmp_path: Path) -> None:
    urgent = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    other = training.cluster.submit(tmp_path, *urgent)
    training.cluster.wait(other, "COMPLETED")
    training.assert_finished_as(undisturbed)


def test_launchers_on_each_node_end_with_the_same_weights(cluster: Cluster, undisturbed: str, tmp_path: Path) -> None:
    run = Submitted(cluster, tmp_path, "--stage", "train", **ALONE, launcher="node")
    run.wait_for("train", MOMENT)
    urgent = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    cluster.wait(cluster.submit(tmp_path, *urgent), "COMPLETED")
    run.assert_finished_as(undisturbed)


def test_a_run_out_of_time_ends_with_the_same_weights(training: Submitted, undisturbed: str) -> None:
    number = training.jobs["train"]
    training.cluster.command("scontrol", "update", f"JobId={number}", "TimeLimit=1")  # no more than the slack
    training.wait_for("train", "requeueing job")
    training.cluster.command("scontrol", "update", f"JobId={number}", "TimeLimit=10")
    training.assert_finished_as(undisturbed)


def test_a_run_that_loses_a_node_ends_with_the_same_weights(training: Submitted, undisturbed: str) -> None:
    training.cluster.command("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    wait_until(lambda: training.cluster.job(training.jobs["train"]).restarts == 1, "the job waits for another node")
    training.assert_finished_as(undisturbed)


def test_a_failing_stage_cancels_what_needs_it_and_says_why(cluster: Cluster, tmp_path: Path) -> None:
    run = Submitted(cluster, tmp_path, corpus={"path": str(tmp_path / "nothing"), "kind": "folder", "name": "faces"})
    states = {stage: run.wait(stage).state for stage in ("preprocess", "train", "eval")}
    assert states == {"preprocess": "FAILED", "train": "CANCELLED", "eval": "CANCELLED"}
    said = run.status
    assert "FAILED with exit status 2" in said or "FAILED with exit status 1" in said
    assert said.count("CANCELLED, because preprocess") == 2


def test_a_cancelled_run_leaves_the_queue(cluster: Cluster, tmp_path: Path) -> None:
    run = Submitted(cluster, tmp_path, "--stage", "train", "--stage", "eval", **ALONE)
    second = marlin("submit", "slurm", "-c", str(run.config), **cluster.environment)
    assert second.returncode == 1
    assert f"queued already as job {run.jobs['train']}" in second.stderr
    run.wait_for("train", "step 1/")
    assert run.marlin("cancel", str(run.config)).startswith("cancelled 2 jobs")
    cluster.cancel_all()
    assert run.wait("train").state == run.wait("eval").state == "CANCELLED"
    assert "no job is left" in run.marlin("cancel", str(run.config))


def test_slurms_own_words_for_what_it_refuses(cluster: Cluster, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({**SMALL, "storage": {"root": str(tmp_path / "data")}}))
    asked = ["launch.slurm.eval.partition=nowhere", "launch.slurm.train.gpus=0"]
    done = marlin("submit", "slurm", "-c", str(config), *asked, **cluster.environment)
    assert done.returncode == 1
    assert "invalid partition" in done.stderr
    assert not cluster.command("squeue", "--noheader", "--states=PENDING,RUNNING").strip()
