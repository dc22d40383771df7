"""slurm/run.sbatch on a real SLURM: `make test-cluster`, as root, with slurm-wlm and munge installed."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.slurm_cluster import Cluster, missing_programs, run_cluster, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SCRIPT = Path(__file__).parents[2] / "slurm" / "run.sbatch"
SMALL = ["data.source=synthetic", "train.global_batch=2", "train.micro_batch=2", "train.val_clips=0"]


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


class Training:
    """A small training submitted with the script; one folder for storage, scratch and the job's log."""

    def __init__(self, cluster: Cluster, folder: Path, steps: int, options: tuple[str, ...] = ("--time=10",)) -> None:
        self.cluster = cluster
        self.folder = folder
        (folder / "scratch").mkdir()
        self.job = cluster.submit(
            folder,
            *("--cpus-per-task=1", "--mem=0", *options, SCRIPT, "-c", "demo"),
            *(*SMALL, f"train.steps={steps}", f"storage.root={folder}/data"),
            MARLIN_VERB="train",
            MARLIN_SCRATCH=str(folder / "scratch"),
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        )

    @property
    def log(self) -> str:
        path = self.folder / f"marlin-{self.job}.log"
        return path.read_text() if path.exists() else ""

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.log, f"'{text}' in the job's log", timeout=300)

    def assert_finished(self, steps: int) -> None:
        job = self.cluster.wait(self.job, "COMPLETED", "FAILED", timeout=400)
        assert job.state == "COMPLETED", self.log
        status = json.loads((self.folder / "data/runs/demo/status.json").read_text())
        assert (status["state"], status["step"]) == ("done", steps)
        assert list((self.folder / "scratch").iterdir()) == []


def test_a_job_finishes(cluster: Cluster, tmp_path: Path) -> None:
    training = Training(cluster, tmp_path, steps=3)
    training.assert_finished(3)
    assert cluster.job(training.job).restarts == 0


def test_a_requeued_job_continues(cluster: Cluster, tmp_path: Path) -> None:
    training = Training(cluster, tmp_path, steps=12)
    training.wait_for("step 2/12")
    cluster.command("scontrol", "requeue", training.job)
    training.assert_finished(12)
    assert cluster.job(training.job).restarts == 1
    assert "resumed from checkpoint" in training.log


def test_a_preempted_job_continues(cluster: Cluster, tmp_path: Path) -> None:
    training = Training(cluster, tmp_path, steps=12)
    training.wait_for("step 2/12")
    urgent = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    other = cluster.submit(tmp_path, *urgent)
    cluster.wait(other, "COMPLETED")
    training.assert_finished(12)
    assert cluster.job(training.job).restarts == 1
    assert "resumed from checkpoint" in training.log


def test_the_time_limit_requeues_before_it_kills(cluster: Cluster, tmp_path: Path) -> None:
    training = Training(cluster, tmp_path, 100_000, ("--time=3", "--signal=B:USR2@110"))
    training.wait_for("requeueing job")
    training.wait_for("resumed from checkpoint")
    assert cluster.job(training.job).restarts >= 1


def test_a_cancelled_job_stays_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    training = Training(cluster, tmp_path, steps=100_000)
    training.wait_for("step 2/")
    cluster.command("scancel", training.job)
    cluster.cancel_all()
    assert cluster.job(training.job).state == "CANCELLED"
    assert "published checkpoint" in training.log


def test_a_failing_job_stops(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit(
        tmp_path,
        *("--cpus-per-task=1", "--mem=0", SCRIPT, "-c", "demo", f"storage.root={tmp_path}", "train.stepz=1"),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    ended = cluster.wait(job, "FAILED", "COMPLETED")
    assert (ended.state, ended.exit_status, ended.restarts) == ("FAILED", 2, 0)
    assert "train.steps" in (tmp_path / f"marlin-{job}.log").read_text()
