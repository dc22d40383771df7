"""One MLflow run for the life of a run: against a real tracking server and against embedded SQLite."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import free_port
from training import environment

from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import run_store, tracking_uri
from pipeline.tracking import flatten, metric_history, open_tracker


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real tracking server on a free port."""
    folder, port = tmp_path_factory.mktemp("mlflow-server"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'm.db'}", "--artifacts-destination", str(folder / "art")]
    env = environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=folder)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def config(root: Path, *overrides: str) -> Config:
    return load_config("demo", [f"storage.root='{root}'", *overrides])


def open_and_log(cfg: Config, steps: range, value: float) -> str:
    with open_tracker(cfg, run_store(cfg)) as tracker:
        for step in steps:
            tracker.log_metrics({"train/mse": value + step}, step)
        return tracker.run_id


def exercise(cfg: Config, tmp_path: Path) -> None:
    """A run that crashed after step 4, with step 2 saved, is the same MLflow run with each step once."""
    from mlflow import MlflowClient

    first = open_and_log(cfg, range(1, 5), 0.0)
    assert open_and_log(cfg, range(3, 6), 100.0) == first
    history = metric_history(cfg, run_store(cfg), "train/mse")
    assert history == [(1, 1.0), (2, 2.0), (3, 103.0), (4, 104.0), (5, 105.0)]
    client = MlflowClient(tracking_uri(cfg))
    experiment = client.get_experiment_by_name(cfg.tracking.experiment)
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (first, "demo", "FINISHED")
    assert run.data.params["train.global_batch"] == str(cfg.train.global_batch)
    assert run.data.params["data.mask.strategy"] == "fasking"
    (tmp_path / "page.txt").write_text("hello")
    with open_tracker(cfg, run_store(cfg)) as tracker:
        tracker.log_file(tmp_path / "page.txt", "pages")
    assert [item.path for item in client.list_artifacts(first, "pages")] == ["pages/page.txt"]


@pytest.mark.slow
def test_a_run_continues_on_a_server(server: str, tmp_path: Path) -> None:
    exercise(config(tmp_path / "root", f"tracking.uri={server}"), tmp_path)


def test_a_run_continues_in_embedded_sqlite(tmp_path: Path) -> None:
    exercise(config(tmp_path / "root"), tmp_path)
    assert (tmp_path / "root" / "mlflow.db").exists()
    assert (tmp_path / "root" / "mlartifacts").is_dir()


def test_a_failed_block_marks_the_run(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    cfg = config(tmp_path)
    tracker = open_tracker(cfg, run_store(cfg))
    with pytest.raises(ZeroDivisionError), tracker:
        1 / 0  # noqa: B018
    assert MlflowClient(tracking_uri(cfg)).get_run(tracker.run_id).info.status == "FAILED"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "http://no-such-host.invalid:5000"])
def test_a_server_that_is_down_is_named_in_one_line(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(tmp_path, f"tracking.uri={uri}")
    with pytest.raises(MarlinError, match=f"MLflow at {uri}: .*check that it runs, and tracking.uri") as caught:
        open_tracker(cfg, run_store(cfg))
    assert "\n" not in str(caught.value)
    assert not run_store(cfg).exists("mlflow.json")


@pytest.mark.parametrize("uri", ["nonsense://x", "sqlite:////proc/none/x.db"])
def test_an_unusable_uri_is_named_in_one_line(uri: str, tmp_path: Path) -> None:
    cfg = config(tmp_path, f"tracking.uri={uri}")
    with pytest.raises(MarlinError, match=r"tracking\.uri|/proc/none"):
        open_tracker(cfg, run_store(cfg))


def test_a_run_that_the_server_lost_is_named(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    run_store(cfg).write("mlflow.json", b'{"run_id": "0123456789abcdef0123456789abcdef"}')
    with pytest.raises(MarlinError, match="0123456789abcdef"):
        open_tracker(cfg, run_store(cfg))


def test_remote_storage_needs_a_uri() -> None:
    with pytest.raises(UsageError, match=r"tracking\.uri is not set and storage\.root=s3://b/p is remote"):
        tracking_uri(load_config("demo", ["storage.root=s3://b/p"]))


def test_a_run_never_tracked_has_no_history(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    assert metric_history(cfg, run_store(cfg), "train/mse") == []


def test_nested_settings_become_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {"a.b.c": 1, "a.d": [2], "e": None}
