"""`marlin submit` with stand-ins for SLURM's commands; tests/integration/test_submit.py has the real ones."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from slurm_programs import TEXT, Programs

from pipeline.cli import main
from pipeline.config.load import dump_config, load_config, override
from pipeline.errors import MarlinError
from pipeline.layout import run_store
from pipeline.submit.slurm import NoSlurm, job_states, queued
from pipeline.submit.state import JobState
from train.status import Status, write_status

pytestmark = pytest.mark.usefixtures("restored")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    stand_ins = Programs(tmp_path / "programs")
    for name in ("PATH", "RECORD"):
        monkeypatch.setenv(name, stand_ins.environment[name])
    return stand_ins


class Command:
    """The command on a small run with its storage in a folder of the test."""

    def __init__(self, folder: Path, printed: pytest.CaptureFixture[str]) -> None:
        self.storage = f"storage.root={folder}/data"
        self.folder = folder
        self._printed = printed

    def submit(self, *options: str) -> tuple[int, str, str]:
        return self("slurm", "-c", "demo", *options, self.storage)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        status = main(["submit", *arguments])
        return status, *self._printed.readouterr()

    def record(self) -> dict[str, object]:
        (path,) = (self.folder / "data/runs/demo/submissions").iterdir()
        return json.loads(path.read_text())


@pytest.fixture
def command(programs: Programs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


def calls(programs: Programs) -> list[list[str]]:
    """The arguments of each call of sbatch."""
    text = (programs.folder / "sbatch").read_text()
    return [line.split("\0")[:-1] for line in text.split("\n")[:-1]]


def test_stages_wait_for_what_they_need(command: Command, programs: Programs) -> None:
    status, out, _ = command.submit()
    assert status == 0
    (first, second, third), kill = calls(programs), "--kill-on-invalid-dep=yes"
    assert first[:-1] == ["--parsable"]
    assert second[:-1] == ["--parsable", "--dependency=afterok:11", kill]
    assert third[:3] == ["--parsable", "--dependency=afterok:11,after:12", kill]
    assert third[4:] == ["12"]
    assert [Path(path).name for path in (first[-1], second[-1], third[3])] == [
        *("preprocess.sbatch", "train.sbatch", "eval.sbatch")
    ]
    assert "train: job 12" in out


@pytest.mark.parametrize(
    ("options", "waits", "arguments"),
    [
        (["launch.slurm.eval.when=after"], "--dependency=afterok:12", []),
        (["--stage", "eval", "--stage", "train"], "--dependency=after:11", ["11"]),
        (["--stage", "eval", "--stage", "preprocess"], "--dependency=afterok:11", []),
        (["--stage", "eval"], None, []),
    ],
)
def test_evaluation_waits_as_configured(
    command: Command, programs: Programs, options: list[str], waits: str | None, arguments: list[str]
) -> None:
    assert command.submit(*options)[0] == 0
    last = calls(programs)[-1]
    assert [word for word in last if word.startswith("--dependency")] == ([waits] if waits else [])
    assert last[next(i for i, word in enumerate(last) if word.endswith("eval.sbatch")) + 1 :] == arguments


def test_a_submission_is_written_down_with_all_it_needs(command: Command) -> None:
    command.submit("train.seed=7", "launch.slurm.eval.jobs=2")
    record = command.record()
    folder = Path(str(record["folder"]))
    assert folder.parent == command.folder / "data/slurm/demo"
    assert load_config(str(folder / "config.yaml")).train.seed == 7
    jobs = record["jobs"]
    assert isinstance(jobs, list)
    assert [(job["stage"], job["number"]) for job in jobs] == [("preprocess", "11"), ("train", "12"), ("eval", "13")]
    assert [Path(job["log"]).name for job in jobs] == ["preprocess-11.log", "train-12.log", "eval-13_*.log"]
    assert all(Path(job["script"]).is_file() for job in jobs)


def test_a_dry_run_prints_and_does_nothing(command: Command, programs: Programs) -> None:
    status, out, _ = command.submit("--dry-run", "--stage", "train", "--stage", "eval")
    assert status == 0
    assert "--dependency=after:TRAIN_JOB" in out
    assert out.count("#!/bin/bash") == 2
    assert not (command.folder / "data").exists()
    assert not (programs.folder / "sbatch").exists()


def test_what_slurm_refuses_takes_the_others_with_it(
    command: Command, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUSED", "eval.sbatch")
    status, _, err = command.submit()
    assert (status, err) == (1, "marlin: sbatch refused: sbatch: error: Invalid account\n")
    assert programs.words("scancel") == ["11", "12"]
    assert not (command.folder / "data/runs").exists()


def test_an_mlflow_that_can_not_be_used_is_refused_before_anything_is_queued(
    command: Command, programs: Programs
) -> None:
    status, _, err = command.submit("tracking.uri=nothing://here")
    assert status == 2
    assert "tracking.uri=nothing://here" in err
    assert command.submit("--stage", "preprocess", "tracking.uri=nothing://here")[0] == 0
    assert len(calls(programs)) == 1


@settings(max_examples=50)
@given(TEXT, TEXT)
def test_jobs_read_what_was_configured(path: str, init: str) -> None:
    cfg = override(load_config("demo"), [f"corpus.path={json.dumps(path)}", f"model.init={json.dumps(init)}"])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_text(dump_config(cfg), "utf-8")
        assert load_config(f"{folder}/config.yaml") == cfg


def test_a_stage_is_not_queued_twice(command: Command, programs: Programs) -> None:
    assert command.submit("--stage", "train")[0] == 0
    programs.job("11", "PENDING", "Priority")
    status, _, err = command.submit()
    assert status == 1
    assert "train of run demo is queued already as job 11" in err
    programs.job("11", "FAILED")
    assert command.submit()[0] == 0


def test_without_slurm_the_error_says_so(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.submit()[::2] == (
        1,
        "marlin: no sbatch on PATH: run this on a login node of the cluster, or load the site's SLURM module\n",
    )


def test_remote_storage_needs_a_folder_for_scripts(command: Command, s3_url: str) -> None:
    status, _, err = command("slurm", "-c", "demo", f"storage.root={s3_url}", "tracking.uri=http://x", "--dry-run")
    assert status == 2
    assert "launch.slurm.folder" in err


def test_status_says_how_jobs_stand_and_why(command: Command, programs: Programs) -> None:
    command.submit()
    programs.job("11", "FAILED", "NonZeroExitCode", "1:0", restarts=2)
    for number in ("12", "13"):
        programs.job(number, "CANCELLED", "DependencyNeverSatisfied")
    folder = Path(str(command.record()["folder"]))
    (folder / "preprocess-11.log").write_text("12:00 working\nmarlin: /data holds no video: check it\nsrun: error: 1\n")
    status, out, _ = command("status", "demo", command.storage)
    said = " ".join(out.split())
    assert status == 0
    assert "not trained yet" in said
    assert "preprocess job 11: FAILED with exit status 1, restarted 2 times" in said
    assert f"{folder}/preprocess-11.log marlin: /data holds no video: check it" in said
    assert "train job 12: CANCELLED, because preprocess did not succeed" in said


def test_status_joins_what_the_run_says(command: Command, programs: Programs) -> None:
    command.submit("--stage", "train")
    write_status(run_store(load_config("demo", [command.storage])), Status("resumable", 40, "stopped after step 40"))
    programs.job("11", "PENDING", "BeginTime", restarts=1)
    _, out, _ = command("status", f"{command.folder}/data/runs/demo")
    said = " ".join(out.split())
    assert "resumable after 40 steps: stopped after step 40" in said
    assert "train job 11: PENDING, restarted 1 time (BeginTime)" in said


def test_cancelling_leaves_what_has_ended(command: Command, programs: Programs) -> None:
    command.submit()
    programs.job("11", "COMPLETED")
    programs.job("12", "RUNNING")
    programs.job("13", "PENDING", "Dependency")
    assert command("cancel", "demo", command.storage)[:2] == (0, "cancelled 2 jobs: 13, 12\n")
    assert programs.words("scancel") == ["13", "12"]


def test_a_run_that_was_never_submitted_has_no_status(command: Command) -> None:
    status, _, err = command("status", f"{command.folder}/data/runs/demo")
    assert status == 1
    assert "nothing of" in err


def test_the_accounts_answer_for_forgotten_jobs(programs: Programs) -> None:
    assert job_states("99") == [JobState("UNKNOWN")]
    (programs.bin / "sacct").write_text("#!/bin/bash\necho 'CANCELLED by 0|0:0'\necho 'FAILED|75:0'\n")
    (programs.bin / "sacct").chmod(0o755)
    assert job_states("99") == [JobState("CANCELLED"), JobState("FAILED", exit_status=75)]


def test_a_controller_that_is_down_has_lost_no_job(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs.job("5", "COMPLETING")
    assert queued("5")
    programs.job("5", "TIMEOUT")
    assert not queued("5")
    assert not queued("6")
    monkeypatch.setenv("SLURM_DOWN", "yes")
    assert queued("5")
    with pytest.raises(MarlinError, match="Unable to contact"):
        job_states("5")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoSlurm):
        queued("5")
