"""One MLflow run for the life of a run: on a real tracking server, and in embedded SQLite."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tracked import client_of, config, log, opened, points, wait_for, waiting

from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.errors import MarlinError, StoppedEarly, UsageError
from pipeline.layout import run_store, tracking_uri
from pipeline.tracking import SystemMetrics, deliver_left_behind, flatten, metric_history
from pipeline.tracking.client import connect

pytestmark = pytest.mark.usefixtures("patient")


def exercise(cfg: Config, tmp_path: Path) -> None:
    """A run that crashed after step 4, with step 2 saved, is the same MLflow run with each step once."""
    first = log(cfg, tmp_path, range(1, 5), 0.0)
    assert log(cfg, tmp_path, range(3, 6), 100.0) == first
    assert points(cfg) == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 105.0)]
    assert metric_history(cfg, run_store(cfg), "train/mse") == points(cfg)
    client = client_of(cfg)
    pictures = [item.path for item in client.list_artifacts(first, "images") if item.path.endswith(".png")]
    assert [path.split("+")[2] for path in sorted(pictures)] == ["1", "2", "3", "4", "5"]
    experiment = client.get_experiment_by_name(cfg.tracking.experiment)
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (first, "demo", "FINISHED")
    assert run.data.params["train.global_batch"] == str(cfg.train.global_batch)
    assert run.data.params["data.mask.strategy"] == "fasking"
    assert run.data.params["versions.torch"]
    assert len(run.data.params["config.sha256"]) == 64
    assert not waiting(cfg)


@pytest.mark.slow
def test_a_run_continues_on_a_server(server: str, tmp_path: Path) -> None:
    cfg = config(tmp_path / "root", f"tracking.uri={server}", "tracking.experiment=continued")
    exercise(cfg, tmp_path)


def test_a_run_continues_in_embedded_sqlite(tmp_path: Path) -> None:
    exercise(config(tmp_path / "root"), tmp_path)
    assert (tmp_path / "root" / "mlflow.db").exists()
    assert (tmp_path / "root" / "mlartifacts").is_dir()


def test_the_artifacts_of_a_named_database_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exercise(config(tmp_path / "root", f"tracking.uri=sqlite:///{tmp_path / 'named' / 'runs.db'}"), tmp_path)
    assert (tmp_path / "named" / "mlartifacts").is_dir()
    assert not (tmp_path / "mlruns").exists()


def test_without_mlflow_nothing_is_told_and_nothing_waits(tmp_path: Path) -> None:
    cfg = config(tmp_path / "root", "tracking.uri=none")
    with opened(cfg, tmp_path) as tracker:
        tracker.log_metrics({"train/mse": 1.0}, 1)
        tracker.secure()
        tracker.will_continue()
        assert tracker.run_id is None
    assert metric_history(cfg, run_store(cfg), "train/mse") == []
    assert not waiting(cfg)
    assert not (tmp_path / "root").exists()
    with pytest.raises(UsageError, match=r"tracking\.uri=none, and this needs MLflow"):
        connect(cfg)


def test_texts_tags_and_data_are_attached(tmp_path: Path) -> None:
    cfg, identity = config(tmp_path / "root"), "5" * 64
    for _ in range(2):  # a resumed run says it all again
        with opened(cfg, tmp_path) as tracker:
            tracker.log_text("checkpoints.json", "[]")
            tracker.set_tags({"checkpoint.newest": "there"})
            tracker.log_dataset("faces", identity, "s3://b/datasets/faces", "training", {"train_samples": 7})
    run = client_of(cfg).get_run(tracker.run_id)
    assert run.data.tags["checkpoint.newest"] == "there"
    [found] = run.inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("faces", identity[:36])
    assert json.loads(found.dataset.source) == {"url": "s3://b/datasets/faces"}
    assert json.loads(found.dataset.profile) == {"identity": identity, "train_samples": 7}
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]
    assert [item.path for item in client_of(cfg).list_artifacts(tracker.run_id)] == ["checkpoints.json"]


def test_a_changed_parameter_becomes_a_tag(tmp_path: Path) -> None:
    root = tmp_path / "root"
    log(config(root), tmp_path, range(1), 0.0)
    run_id = log(changed := config(root, "train.base_lr=0.5"), tmp_path, range(1), 0.0)
    run = client_of(changed).get_run(run_id)
    assert run.data.params["train.base_lr"] != "0.5"
    names = changes(run)
    assert names.pop("changed.config.sha256") != run.data.params["config.sha256"]
    assert names == {"changed.train.base_lr": "0.5"}
    log(config(root), tmp_path, range(1), 0.0)
    assert changes(client_of(changed).get_run(run_id)) == {}


def changes(run: Any) -> dict[str, str]:
    return {name: value for name, value in run.data.tags.items() if name.startswith("changed.")}


@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError, "FAILED"), (StoppedEarly, "SCHEDULED"), (None, "FINISHED")]
)
def test_the_end_of_the_block_is_the_end_of_the_run(error: type[Exception] | None, status: str, tmp_path: Path) -> None:
    cfg = config(tmp_path)
    tracker = opened(cfg, tmp_path)
    try:
        with tracker:
            if error:
                raise error("x")
    except (ZeroDivisionError, StoppedEarly):
        pass
    assert client_of(cfg).get_run(tracker.run_id).info.status == status


def test_a_run_that_will_continue_is_scheduled_and_others_leave_it_so(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    with opened(cfg, tmp_path) as tracker:
        tracker.will_continue()
    with opened(cfg, tmp_path, owner=False) as evaluation:
        evaluation.log_metrics({"eval/a": 1.0}, 40)
    with opened(cfg, tmp_path, owner=False) as evaluation:
        evaluation.log_metrics({"eval/a": 0.5}, 20)  # an earlier checkpoint, evaluated later
    assert points(cfg, "eval/a") == [(20, 0.5), (40, 1.0)]
    assert client_of(cfg).get_run(tracker.run_id).info.status == "SCHEDULED"


def test_a_step_told_again_in_another_segment_stays_as_it_was(tmp_path: Path) -> None:
    """Values of a crashed start that wait in storage, and those of the next start, may go through one session."""
    cfg = config(tmp_path)
    for number, steps in enumerate(([1, 2, 3], [3, 2, 5], [4, 5, 3])):
        lines = [
            json.dumps({"kind": "metrics", "time": 100 * number + step, "step": step, "values": {"train/mse": number}})
            for step in steps
        ]
        run_store(cfg).write(f"tracking/00000000000{number}-x-000000.jsonl", "\n".join(lines).encode())
    assert deliver_left_behind(cfg, run_store(cfg)) == 3
    assert points(cfg) == [(1, 0.0), (2, 0.0), (3, 0.0), (4, 2.0), (5, 1.0)]


def test_a_machine_is_watched(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    begun = time.time()
    with opened(cfg, tmp_path) as tracker, SystemMetrics(tracker, 1, "node-1"):
        wait_for(lambda: tracker.run_id is not None and len(points(cfg, "system/node-1/disk_usage_percentage")) > 1)
    [(step, share), *_] = points(cfg, "system/node-1/cpu_utilization_percentage")
    assert begun <= step <= time.time()
    assert 0 <= share <= 100
    [(_, free), *_] = points(cfg, "system/node-1/disk_available_megabytes")
    assert free > 0


def test_an_older_word_does_not_change_the_status(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    with opened(cfg, tmp_path) as tracker:
        pass
    old = json.dumps({"kind": "status", "time": 1, "status": "FAILED"})
    run_store(cfg).write("tracking/000000000001-x-000000.jsonl", old.encode())
    assert deliver_left_behind(cfg, run_store(cfg)) == 1
    assert client_of(cfg).get_run(tracker.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    "uri", ["http://name@host", "https://name:word@host", "postgresql://host/db?password=x", "mysql://a:b@host/db"]
)
def test_secrets_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds a password"):
        config(tmp_path, f"tracking.uri='{uri}'")


@pytest.mark.parametrize("uri", ["nonsense://x", "sqlite:////proc/none/x.db", "sqlite:x"])
def test_an_unusable_uri_is_named_in_one_line(uri: str, tmp_path: Path) -> None:
    cfg = config(tmp_path, f"tracking.uri={uri}")
    with pytest.raises(MarlinError, match=r"tracking\.uri|/proc/none") as caught:
        opened(cfg, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "fuse.sshfs"])
def test_sqlite_on_a_shared_file_system_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / {tmp_path} rw shared:1 - {kind} host:/x rw\n")
    monkeypatch.setattr("pipeline.tracking.client.MOUNTINFO", mounts)
    cfg = config(tmp_path / "root", *([f"tracking.uri=sqlite+pysqlite:///{tmp_path}/x.db"] * (kind == "lustre")))
    with pytest.raises(UsageError, match=rf"shared file system \({kind}\): run `mlflow server`"):
        opened(cfg, tmp_path)
    assert not (tmp_path / "root").exists()


def test_remote_storage_needs_a_uri() -> None:
    with pytest.raises(UsageError, match=r"tracking\.uri is not set and storage\.root=s3://b/p is remote"):
        tracking_uri(load_config("demo", ["storage.root=s3://b/p"]))


def test_a_run_never_tracked_has_no_history(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    assert metric_history(cfg, run_store(cfg), "train/mse") == []


def test_nested_settings_become_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {"a.b.c": 1, "a.d": [2], "e": None}
