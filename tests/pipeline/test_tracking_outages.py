"""MLflow that is down, slow, forgetful or full: nobody waits, nothing is lost, nothing is there twice."""

import json
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from proxy import Fault, Request, proxied
from tracked import IMAGE, client_of, config, log, opened, points, wait_for, waiting

from pipeline.cli import main
from pipeline.layout import run_store
from pipeline.tracking import deliver_left_behind
from pipeline.tracking.spool import Spool, parse_events

pytestmark = pytest.mark.usefixtures("patient")


@pytest.mark.usefixtures("hurried")
@pytest.mark.slow
def test_two_that_deliver_the_same_double_nothing(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process was killed between delivering and forgetting; `marlin track` and the next start are at it at once."""
    with proxied(server) as proxy:
        proxy.fault = lambda request: Fault()
        cfg = config(tmp_path / "root", f"tracking.uri={proxy.url}", "tracking.experiment=two")
        with opened(cfg, tmp_path) as tracker:
            for step in range(1, 6):
                tracker.log_metrics({"train/mse": float(step)}, step)
                tracker.log_image("reconstruction", IMAGE, step)
            tracker.secure()
    direct = config(tmp_path / "root", f"tracking.uri={server}", "tracking.experiment=two")
    run = run_store(direct)
    copies = {key: run.read(key) for key in waiting(direct)}
    with ThreadPoolExecutor(2) as pool:
        for delivered in [pool.submit(deliver_left_behind, direct, run) for _ in range(2)]:
            delivered.result()
    for key, data in copies.items():
        run.write(key, data)
    monkeypatch.setattr("pipeline.tracking.tracker._LAST_SECONDS", 60.0)
    with opened(direct, tmp_path) as tracker:
        tracker.log_metrics({"train/mse": 6.0}, 6)
    assert points(direct) == [(step, float(step)) for step in range(1, 7)]
    assert len(client_of(direct).list_artifacts(tracker.run_id, "images")) == 10
    experiment = client_of(direct).get_experiment_by_name("two")
    assert len(client_of(direct).search_runs([experiment.experiment_id])) == 1


@pytest.mark.slow
def test_a_run_whose_answer_was_lost_is_found_again(server: str, tmp_path: Path) -> None:
    def fault(request: Request) -> Fault | None:
        return Fault(cut_after=1) if request.path.endswith("runs/create") and not lost.append(request) else None

    lost: list[Request] = []
    with proxied(server) as proxy:
        proxy.fault = fault
        cfg = config(tmp_path / "root", f"tracking.uri={proxy.url}", "tracking.experiment=lost")
        log(cfg, tmp_path, range(1, 3), 0.0)
    assert lost
    direct = config(tmp_path / "root", f"tracking.uri={server}")
    experiment = client_of(direct).get_experiment_by_name("lost")
    assert len(client_of(direct).search_runs([experiment.experiment_id])) == 1


@pytest.mark.usefixtures("hurried")
@pytest.mark.slow
def test_what_a_missing_server_did_not_get_is_delivered_by_the_next_process(
    server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(server) as proxy:
        proxy.fault = lambda request: Fault()
        cfg = config(tmp_path / "root", f"tracking.uri={proxy.url}", "tracking.experiment=missing")
        with opened(cfg, tmp_path) as tracker:
            tracker.log_metrics({"train/mse": 1.0}, 1)
            tracker.log_image("reconstruction", IMAGE, 1)
            assert tracker.run_id is None
        [kept] = [line.message for line in caplog.records if "kept and sent later" in line.message]
        assert f"MLflow at {proxy.url}" in kept
        assert waiting(cfg)
        with opened(cfg, tmp_path) as tracker:  # once more in vain
            tracker.log_metrics({"train/mse": 2.0}, 2)
        proxy.fault = lambda request: None
        monkeypatch.setattr("pipeline.tracking.tracker._LAST_SECONDS", 60.0)
        with opened(cfg, tmp_path) as tracker:
            tracker.log_metrics({"train/mse": 3.0}, 3)
        assert points(cfg) == [(1, 1.0), (2, 2.0), (3, 3.0)]
        assert len(client_of(cfg).list_artifacts(tracker.run_id, "images")) == 2  # whole, and small
        assert not waiting(cfg)


@pytest.mark.usefixtures("hurried")
@pytest.mark.slow
def test_marlin_track_delivers_what_waits(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with proxied(server) as proxy:
        proxy.fault = lambda request: Fault()
        uri = f"tracking.uri={proxy.url}"
        cfg = config(tmp_path / "root", uri, "tracking.experiment=by-hand")
        with opened(cfg, tmp_path) as tracker:
            tracker.log_metrics({"train/mse": 1.0}, 1)
        command = ["track", "-c", "demo", f"storage.root={tmp_path / 'root'}", uri, "tracking.experiment=by-hand"]
        assert main(command) == 1
        assert capsys.readouterr().err.count("\n") == 1
        assert waiting(cfg)
        proxy.fault = lambda request: None
        assert main(command) == 0
        assert points(cfg) == [(1, 1.0)]
        run_id = json.loads(run_store(cfg).read("mlflow.json"))["run_id"]
        assert client_of(cfg).get_run(run_id).info.status == "FINISHED"
        assert main(command) == 0
        assert re.fullmatch(r"delivered \d files?\nnothing waits for MLflow\n", capsys.readouterr().out)


@pytest.mark.slow
def test_lost_answers_double_nothing(server: str, tmp_path: Path) -> None:
    """Every third answer to a request that changes something is lost."""
    draw, cut = random.Random(0), []

    def fault(request: Request) -> Fault | None:
        if request.method not in ("POST", "PUT") or draw.random() > 0.3:
            return None
        cut.append(request.method)
        return Fault(cut_after=1)

    with proxied(server) as proxy:
        cfg = config(tmp_path / "root", f"tracking.uri={proxy.url}", "tracking.experiment=answers")
        with opened(cfg, tmp_path) as tracker:
            tracker.log_metrics({"train/mse": 0.0}, 0)
            wait_for(lambda: tracker.run_id is not None)
            proxy.fault = fault
            for step in range(1, 6):
                tracker.log_metrics({"train/mse": float(step)}, step)
                tracker.log_image("reconstruction", IMAGE, step)
                time.sleep(0.2)
            wait_for(lambda: {"POST", "PUT"} <= set(cut))
            proxy.fault = lambda request: None
    direct = config(tmp_path / "root", f"tracking.uri={server}")
    assert points(direct) == [(step, float(step)) for step in range(6)]
    assert len(client_of(direct).list_artifacts(tracker.run_id, "images")) == 10


@pytest.mark.usefixtures("hurried")
@pytest.mark.slow
def test_a_server_that_hangs_holds_nobody_up_and_loses_nothing(server: str, tmp_path: Path) -> None:
    with proxied(server) as proxy:
        proxy.fault = lambda request: Fault(stall=3600)
        cfg = config(tmp_path / "root", f"tracking.uri={proxy.url}", "tracking.experiment=hangs")
        with opened(cfg, tmp_path) as tracker:
            for step in range(1, 200):
                tracker.log_metrics({"train/mse": float(step)}, step)
            assert tracker.run_id is None  # we are here, and the server has not said a word
        assert waiting(cfg)
        direct = config(tmp_path / "root", f"tracking.uri={server}", "tracking.experiment=hangs")
        assert deliver_left_behind(direct, run_store(direct)) >= 1
        assert points(direct) == [(step, float(step)) for step in range(1, 200)]


def test_what_is_secured_outlives_the_process_and_is_removed_once_delivered(server: str, tmp_path: Path) -> None:
    with proxied(server) as proxy:
        proxy.fault = lambda request: Fault()
        cfg = config(tmp_path / "root", f"tracking.uri={proxy.url}", "tracking.experiment=secured")
        with opened(cfg, tmp_path) as tracker:
            tracker.log_metrics({"train/mse": 1.0}, 1)
            tracker.secure()
            assert waiting(cfg)
            proxy.fault = lambda request: None
            wait_for(lambda: not waiting(cfg))
            tracker.secure()
            assert not waiting(cfg)
        assert points(cfg) == [(1, 1.0)]


def test_what_mlflow_refuses_does_not_hold_up_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = config(tmp_path)
    with opened(cfg, tmp_path) as tracker:
        for step in range(1, 8):
            tracker.log_metrics({"train/mse": float(step), f"bad:*{step}": 1.0, "nan": float("nan")}, step)
        wait_for(lambda: "MLflow refuses bad:*7" in caplog.text)
        tracker.log_metrics({"train/mse": 8.0}, 8)
    assert points(cfg) == [(step, float(step)) for step in range(1, 9)]
    assert len(points(cfg, "nan")) == 7
    assert not waiting(cfg)


def test_values_of_a_run_that_is_deleted_under_way_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(tmp_path)
    run_id = log(cfg, tmp_path, range(1), 0.0)
    monkeypatch.setattr("pipeline.tracking.tracker._LAST_SECONDS", 3.0)
    with opened(cfg, tmp_path) as tracker:
        tracker.log_metrics({"train/mse": 1.0}, 1)
        wait_for(lambda: (1, 1.0) in points(cfg))
        client_of(cfg).delete_run(run_id)
        tracker.log_metrics({"train/mse": 2.0}, 2)
    client_of(cfg).restore_run(run_id)
    assert deliver_left_behind(cfg, run_store(cfg))
    assert points(cfg) == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_a_run_that_the_server_lost_is_named_and_its_values_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(tmp_path)
    run_id = log(cfg, tmp_path, range(1, 3), 0.0)
    client_of(cfg).delete_run(run_id)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.tracking.tracker._LAST_SECONDS", 3.0)
        log(cfg, tmp_path, range(3, 5), 0.0)
    assert f"MLflow has no run {run_id}: restore it" in caplog.text
    client_of(cfg).restore_run(run_id)
    log(cfg, tmp_path, range(5, 6), 0.0)
    assert [step for step, _ in points(cfg)] == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("hurried")
def test_what_can_t_be_secured_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = config(tmp_path / "root", "tracking.uri=http://127.0.0.1:1")
    with opened(cfg, tmp_path) as tracker:
        (tmp_path / "root" / "runs").mkdir(parents=True)
        (tmp_path / "root" / "runs" / "demo").write_text("in the way")
        tracker.secure()
    assert "is not safe in the run's folder" in caplog.text
    assert "and the rest is lost" in caplog.text


def test_a_full_disk_loses_what_does_not_fit_and_nothing_else(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.add({"kind": "metrics", "step": 1})
    [segment] = (tmp_path / "spool").iterdir()
    with segment.open("a") as file:
        file.write('{"kind": "met')  # as a full disk leaves it
    segment.chmod(0o400)
    segment.rename(segment.with_suffix(".kept"))
    segment.mkdir()  # even root can't append to it
    spool.add({"kind": "metrics", "step": 2})
    segment.rmdir()
    segment.with_suffix(".kept").rename(segment)
    spool.add({"kind": "metrics", "step": 3})
    events = [event for path in spool.close_all() for event in parse_events(path.read_bytes())]
    assert [event["step"] for event in events] == [1, 3]


@pytest.mark.slow
def test_an_artifact_store_that_fails_holds_up_no_values(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.tracking.delivery._FILE_TRIES", 3)
    with proxied(server) as proxy:
        proxy.fault = lambda request: Fault() if "mlflow-artifacts" in request.path else None
        cfg = config(tmp_path / "root", f"tracking.uri={proxy.url}", "tracking.experiment=files")
        with opened(cfg, tmp_path) as tracker:
            tracker.log_image("reconstruction", IMAGE, 1)
            tracker.log_metrics({"train/mse": 1.0}, 1)
            wait_for(lambda: "artifact store does not take image" in caplog.text)
        assert points(cfg) == [(1, 1.0)]
        assert not waiting(cfg)
