"""slurm/run.sbatch with stand-ins for `marlin` and `scontrol`; tests/integration/test_slurm.py has the real ones."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).parents[1] / "slurm" / "run.sbatch"
MARLIN = """#!/bin/bash
printf '%s\\0' "$@" >"$RECORD/arguments"
trap 'echo TERM >>"$RECORD/signals"; exit 75' TERM
echo $$ >"$RECORD/started"
[[ -z ${MARLIN_WAITS:-} ]] || while :; do sleep 0.05; done
exit "${MARLIN_EXIT:-0}"
"""
SCONTROL = """#!/bin/bash
case $1 in
  show) echo "JobId=7 JobName=marlin JobState=${JOB_STATE:-RUNNING} Reason=None" ;;
  *) echo "$@" >>"$RECORD/scontrol" ;;
esac
"""


class Submission:
    """The script as slurmd starts it, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = folder / "programs"
        programs.mkdir()
        for name, text in (("marlin", MARLIN), ("scontrol", SCONTROL)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "RECORD": str(folder),
            "SLURM_JOB_ID": "7",
            "TMPDIR": str(folder),
        }

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[bytes]":
        command = ["bash", str(SCRIPT), *arguments]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env={**self.environment, **variables}, stdout=log, stderr=log
            )

    def run(self, *arguments: str, **variables: str) -> int:
        return self.start(*arguments, **variables).wait(30)

    def read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def arguments(self) -> list[str]:
        return self.read("arguments").split("\0")[:-1]


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    return Submission(tmp_path)


def test_a_finished_run_ends_the_job(submission: Submission) -> None:
    assert submission.run("-c", "demo") == 0
    assert submission.arguments()[:3] == ["run", "-c", "demo"]
    assert submission.read("scontrol") == ""


def test_an_early_stop_requeues_the_job(submission: Submission) -> None:
    assert submission.run("-c", "demo", MARLIN_EXIT="75", SLURM_RESTART_COUNT="2") == 75
    assert submission.read("scontrol") == "requeue 7\n"


def test_requeues_are_bounded(submission: Submission) -> None:
    last = {"MARLIN_EXIT": "75", "SLURM_RESTART_COUNT": "3", "MARLIN_MAX_REQUEUES": "3"}
    assert submission.run("-c", "demo", **last) == 75
    assert submission.read("scontrol") == ""
    assert "MARLIN_MAX_REQUEUES" in submission.read("log")


@pytest.mark.parametrize("status", [1, 2, 137])
def test_a_failure_stops_with_its_status(submission: Submission, status: int) -> None:
    assert submission.run("-c", "demo", MARLIN_EXIT=str(status)) == status
    assert submission.read("scontrol") == ""


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING"])
def test_a_cancelled_job_stays_cancelled(submission: Submission, state: str) -> None:
    assert submission.run("-c", "demo", MARLIN_EXIT="75", JOB_STATE=state) == 75
    assert submission.read("scontrol") == ""


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_signals_are_passed_on_once(submission: Submission, number: signal.Signals) -> None:
    job = _running(submission)
    job.send_signal(number)
    job.send_signal(number)
    assert job.wait(30) == 75
    assert submission.read("signals") == "TERM\n"
    assert submission.read("scontrol") == "requeue 7\n"


def test_a_signal_that_slurm_sends_to_all_processes_is_not_repeated(submission: Submission) -> None:
    job = _running(submission, JOB_STATE="COMPLETING")
    job.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert submission.read("signals") == ""
    os.kill(int(submission.read("started")), signal.SIGTERM)
    assert job.wait(30) == 75


def test_the_allocation_becomes_overrides(submission: Submission) -> None:
    submission.run("-c", "demo", SLURM_CPUS_PER_TASK="8", SLURM_GPUS_ON_NODE="2")
    values = dict(argument.split("=", 1) for argument in submission.arguments()[3:])
    assert values["train.processes"] == "2"
    assert values["launch.threads"] == "4"
    assert values["preprocess.workers"] == "8"


def test_the_command_line_wins_over_the_allocation(submission: Submission) -> None:
    own = ["train.processes=1", "launch.scratch=/fast", "launch.threads=3", "preprocess.workers=2"]
    submission.run("-c", "demo", *own, SLURM_CPUS_PER_TASK="8")
    assert submission.arguments()[3:] == own


def test_scratch_is_the_jobs_own_and_removed(submission: Submission, tmp_path: Path) -> None:
    base = tmp_path / "it's: a {scratch}"
    base.mkdir()
    submission.run("-c", "demo", MARLIN_SCRATCH=str(base))
    (override,) = [a for a in submission.arguments() if a.startswith("launch.scratch=")]
    scratch = Path(yaml.safe_load(override.partition("=")[2]))
    assert scratch.parent == base
    assert list(base.iterdir()) == []


def test_odd_values_reach_marlin_unchanged(submission: Submission) -> None:
    odd = ["-c", "my run.yaml", "storage.root=/a b/$HOME; `id` \"'\n*"]
    submission.run(*odd, MARLIN_VERB="train")
    assert submission.arguments()[:4] == ["train", *odd]


def test_without_marlin_the_job_says_what_to_do(submission: Submission) -> None:
    (submission.folder / "programs" / "marlin").unlink()
    assert submission.run("-c", "demo", PATH=f"{submission.folder}/programs:/usr/bin:/bin") == 2
    assert "make setup" in submission.read("log")


def test_shellcheck_finds_nothing() -> None:
    linter = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([linter, "--shell=bash", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def _running(submission: Submission, **variables: str) -> "subprocess.Popen[bytes]":
    job = submission.start("-c", "demo", MARLIN_WAITS="yes", **variables)
    end = time.monotonic() + 20
    while not submission.read("started").strip():
        assert time.monotonic() < end, submission.read("log")
        time.sleep(0.02)
    return job
