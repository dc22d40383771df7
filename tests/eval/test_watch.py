"""Evaluation jobs that wait for checkpoints and share the work."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import botocore.handlers
import pytest
from drawn_runs import MakeRun, publish
from training import marlin, start_marlin, write_config

from eval.job import run_eval
from eval.results import lease_key, result_key
from eval.tasks.context import Measured, TaskContext
from eval.tasks.registry import TASKS
from eval.watch import watch
from pipeline.checkpoints import delete_checkpoint, list_checkpoints
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store, run_store
from pipeline.leases import take
from pipeline.storage import ConditionalPutsIgnored, Store, Unavailable
from pipeline.storage.manifest import to_json
from pipeline.tracking import metric_history
from train.retention import Retention, withdraw_old
from train.status import Status, read_status, write_status

QUICK = ("eval.poll_seconds=0.2", "eval.lease_seconds=3", "eval.tasks=[reconstruction]")


def results(run: Store) -> list[str]:
    return [item.key for item in run.list("evals/")]


def test_everything_published_is_evaluated_until_the_training_has_ended(make_run: MakeRun, tmp_path: Path) -> None:
    cfg = make_run(*QUICK, steps=(20,))
    run = run_store(cfg)
    write_status(run, Status("running", 20))

    def train_on() -> None:
        end = time.monotonic() + 120
        while not run.exists("evals/step-00000020.r0/reconstruction.json") and time.monotonic() < end:
            time.sleep(0.05)
        publish(cfg, 40, tmp_path / "later")
        write_status(run, Status("done", 40))

    training = threading.Thread(target=train_on, daemon=True)
    training.start()
    assert watch(cfg, progress=False) == 2
    training.join()
    assert results(run) == [f"evals/step-000000{step}.r0/reconstruction.json" for step in (20, 40)]
    assert [step for step, _ in metric_history(cfg, run, "eval/reconstruction/mse")] == [20, 40]


def test_the_newest_comes_first(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    cfg = make_run(*QUICK, steps=(20, 40, 60))
    write_status(run_store(cfg), Status("done", 60))
    assert watch(cfg, progress=False) == 3
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("evaluating")]
    assert told == [f"evaluating step-000000{step}.r0: reconstruction" for step in (60, 40, 20)]


def test_a_failed_training_ends_the_watch(make_run: MakeRun) -> None:
    cfg = make_run(*QUICK)
    write_status(run_store(cfg), Status("failed", 20, "the disk is full"))
    with pytest.raises(MarlinError, match="the training failed, and all it published is evaluated: the disk is full"):
        watch(cfg, progress=False)
    assert results(run_store(cfg)) == ["evals/step-00000020.r0/reconstruction.json"]


def test_a_job_that_is_gone_before_the_end_ends_the_watch(make_run: MakeRun) -> None:
    cfg = make_run(*QUICK)
    run = run_store(cfg)
    write_status(run, Status("resumable", 20, "stopped"))
    there = iter([True, True, False])
    with pytest.raises(MarlinError, match="the job that trained is gone, all it published is evaluated"):
        watch(cfg, progress=False, trains=lambda: next(there))
    assert results(run) == ["evals/step-00000020.r0/reconstruction.json"]


def test_while_its_job_is_there_a_training_has_not_ended(make_run: MakeRun) -> None:
    cfg = make_run(*QUICK)
    run = run_store(cfg)
    write_status(run, Status("failed", 20, "of an earlier start"))
    looks = 0

    def trains() -> bool:
        nonlocal looks
        looks += 1
        if looks == 5:
            write_status(run, Status("done", 20))
        return looks < 5

    assert watch(cfg, progress=False, trains=trains) == 1
    assert looks == 5


def test_damaged_and_withdrawn_checkpoints_are_passed_over(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = make_run(*QUICK, steps=(20, 40, 60))
    run = run_store(cfg)
    write_status(run, Status("done", 60))
    first, second, _ = list_checkpoints(run)
    run.write(f"{first.prefix}/model.safetensors", b"damaged")
    measure = TASKS["reconstruction"].run

    def withdraw(context: object) -> object:
        delete_checkpoint(run, second)
        return measure(context)  # type: ignore[arg-type]

    monkeypatch.setattr(TASKS["reconstruction"], "run", withdraw)
    assert watch(cfg, progress=False) == 1
    assert results(run) == ["evals/step-00000060.r0/reconstruction.json"]
    assert "checkpoint step-00000020.r0 can't be evaluated" in caplog.text


def test_results_of_a_job_that_died_before_it_told_them_are_told(make_run: MakeRun) -> None:
    cfg = make_run(*QUICK, steps=(20, 40))
    run = run_store(cfg)
    write_status(run, Status("done", 40))
    text = to_json({"schema": 1, "metrics": {"mse": 0.5}})
    run.write(result_key(list_checkpoints(run)[0], "reconstruction"), text)
    assert watch(cfg, progress=False) == 1
    assert [step for step, _ in metric_history(cfg, run, "eval/reconstruction/mse")] == [20, 40]


def test_what_another_works_on_is_left_to_it(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = make_run(*QUICK)
    run, [checkpoint] = run_store(cfg), list_checkpoints(run_store(cfg))
    write_status(run, Status("done", 20))
    other = take(run, lease_key(checkpoint, "reconstruction"), 60)
    assert other is not None
    events: list[str] = []
    measure = TASKS["reconstruction"].run

    def note(context: TaskContext) -> Measured:
        events.append("evaluated")
        return measure(context)

    def give_back() -> None:
        time.sleep(2)
        events.append("given back")
        other.__exit__(None, None, None)

    monkeypatch.setattr(TASKS["reconstruction"], "run", note)
    threading.Thread(target=give_back, daemon=True).start()
    assert watch(cfg, progress=False) == 1
    assert events == ["given back", "evaluated"]


def test_storage_that_is_out_of_reach_is_waited_for(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = make_run(*QUICK)
    write_status(run_store(cfg), Status("done", 20))
    failures = iter([Unavailable("storage is away")] * 3)

    def read(run: Store) -> Status | None:
        for failure in failures:
            raise failure
        return read_status(run)

    monkeypatch.setattr("eval.watch.read_status", read)
    assert watch(cfg, progress=False) == 1
    assert caplog.text.count("storage is away; looking again") == 3


def test_missing_data_is_no_damaged_checkpoint(make_run: MakeRun) -> None:
    cfg = make_run(*QUICK)
    write_status(run_store(cfg), Status("done", 20))
    data = dataset_store(cfg)
    for item in data.list("shards/"):
        data.delete(item.key)
    with pytest.raises(MarlinError):
        watch(cfg, progress=False)


def test_a_checkpoint_that_is_being_evaluated_stays(make_run: MakeRun) -> None:
    run = run_store(make_run(steps=(20, 40, 60)))
    lease = take(run, lease_key(list_checkpoints(run)[0], "reconstruction"), 60)
    assert lease is not None
    with lease:
        withdraw_old(run, Retention(last=1))
        assert [each.step for each in list_checkpoints(run)] == [20, 60]
    withdraw_old(run, Retention(last=1))
    assert [each.step for each in list_checkpoints(run)] == [60]


@pytest.mark.slow
def test_two_watchers_of_which_one_is_killed_evaluate_each_checkpoint_once(make_run: MakeRun, tmp_path: Path) -> None:
    cfg = make_run(*QUICK, steps=range(10, 110, 10))
    run, path = run_store(cfg), write_config(cfg, tmp_path / "run.yaml")
    write_status(run, Status("done", 100))
    command = ["eval", "--watch", "-c", path]
    with start_marlin(command) as doomed:
        while not any(key.endswith(".lease") for key in results(run)):
            assert doomed.poll() is None, doomed.communicate()
            time.sleep(0.01)
        os.killpg(doomed.pid, signal.SIGKILL)
    left = [key for key in results(run) if key.endswith(".lease")]
    with start_marlin(command) as first, start_marlin(command) as second:
        ended = [process.communicate(timeout=240) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], ended
    assert len(left) == 1
    made = [key for key in results(run) if not key.endswith(".lease")]
    assert sum(int(out.split()[1]) for out, _ in ended) in (9, 10)  # the one that was killed may have finished one
    assert made == [f"evals/step-{step:08d}.r0/reconstruction.json" for step in range(10, 110, 10)]
    evaluated = [line for _, err in ended for line in err.splitlines() if "evaluating step" in line]
    assert len(evaluated) == len({line.split("evaluating ")[1] for line in evaluated})
    assert [step for step, _ in metric_history(cfg, run, "eval/reconstruction/mse")] == list(range(10, 110, 10))


@pytest.mark.slow
def test_a_stopped_watcher_gives_its_leases_back(make_run: MakeRun, tmp_path: Path) -> None:
    cfg = make_run(*QUICK, "eval.lease_seconds=600")
    run, path = run_store(cfg), write_config(cfg, tmp_path / "run.yaml")
    with start_marlin(["eval", "--watch", "-c", path]) as process:
        while not any(key.endswith(".lease") for key in results(run)):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert not [key for key in results(run) if key.endswith(".lease")]


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_for_single_evaluations(
    ignored: str, make_run: MakeRun, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = make_run(f"storage.root={s3_url}", *QUICK)
    run = run_store(cfg)
    write_status(run, Status("done", 20))

    def forget(request: Any, **_: object) -> None:
        if ignored in request.headers:
            del request.headers[ignored]

    # Every client that is made from now on asks a server that does not know the condition.
    handlers = [*botocore.handlers.BUILTIN_HANDLERS, ("before-sign.s3.PutObject", forget)]
    monkeypatch.setattr("botocore.handlers.BUILTIN_HANDLERS", handlers)
    for _ in range(2):
        with pytest.raises(ConditionalPutsIgnored, match="two jobs could do the same work: evaluate without --watch"):
            watch(cfg, progress=False)
    assert results(run) == []
    mse = run_eval(cfg, progress=False)["reconstruction"]["metrics"]["mse"]
    assert metric_history(cfg, run, "eval/reconstruction/mse") == [(20, pytest.approx(mse))]
    assert results(run) == ["evals/step-00000020.r0/reconstruction.json"]


def test_watching_one_checkpoint_is_wrong_usage() -> None:
    ended = marlin("eval", "-c", "demo", "--watch", "--checkpoint", "20")
    assert ended.returncode == 2
    assert "not allowed with" in ended.stderr
