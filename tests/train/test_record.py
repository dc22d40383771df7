"""What a training run tells MLflow, and that it never waits for it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow_server import run_mlflow_server
from proxy import Fault, proxied
from training import MakeTraining, signal_at, weights

from pipeline.checkpoints import list_checkpoints
from pipeline.config.schema import Config
from pipeline.errors import StoppedEarly
from pipeline.layout import run_store, tracking_uri
from pipeline.tracking import deliver_left_behind, metric_history
from train.launch import run_training
from train.record import open_record
from train.world import World

METRICS = ("train/mse", "train/critic_loss", "train/samples", "val/mse")


@contextmanager
def hurried() -> Iterator[None]:
    """At its end a run waits for MLflow for a second only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.tracking.tracker._LAST_SECONDS", 1.0)
        yield


def mlflow_run(cfg: Config) -> Any:
    run_id = json.loads(run_store(cfg).read("mlflow.json"))["run_id"]
    return MlflowClient(tracking_uri(cfg)).get_run(run_id)


def histories(cfg: Config) -> dict[str, list[tuple[int, float]]]:
    return {name: metric_history(cfg, run_store(cfg), name) for name in METRICS}


def untracked(cfg: Config) -> Config:
    """The same run where no server answers."""
    return cfg.model_copy(update={"tracking": cfg.tracking.model_copy(update={"uri": "http://127.0.0.1:1"})})


def test_a_run_links_its_data_and_its_checkpoints(training: MakeTraining, drawn: Any) -> None:
    cfg = training("linked", "train.keep_last=2", "train.checkpoint_every=1")
    run_training(cfg)
    run, store = mlflow_run(cfg), run_store(cfg)
    assert run.info.status == "FINISHED"
    [lineage] = run.inputs.dataset_inputs
    assert json.loads(lineage.dataset.profile)["identity"] == drawn.dataset.identity
    published = list_checkpoints(store)
    urls = [f"{store.url}/checkpoints/{each.name}" for each in published]
    assert run.data.tags["checkpoint.newest"] == urls[-1]
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert [each["url"] for each in json.loads((folder / "checkpoints.json").read_text())] == urls
    steps = dict(histories(cfg)["train/samples"])
    assert steps[published[-1].step] == published[-1].info["samples"]


def test_without_a_server_the_run_ends_as_with_one_and_its_values_come_later(
    training: MakeTraining, tmp_path: Path
) -> None:
    tracked, alone = training("tracked"), training("alone")
    run_training(tracked)
    with hurried():
        assert run_training(untracked(alone)).state == "done"
    assert weights(alone, tmp_path / "a") == weights(tracked, tmp_path / "b")
    assert not run_store(alone).exists("mlflow.json")
    assert "mlflow_run_id" not in list_checkpoints(run_store(alone))[-1].info
    assert deliver_left_behind(alone, run_store(alone))
    assert histories(alone) == histories(tracked)
    assert mlflow_run(alone).data.params["dataset"] == mlflow_run(tracked).data.params["dataset"]


def test_a_stopped_run_without_a_server_is_one_mlflow_run_when_it_continues(
    training: MakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = training("whole"), training("stopped")
    run_training(whole)
    with monkeypatch.context() as patch:
        signal_at(patch, 2)
        with pytest.raises(StoppedEarly), hurried():
            run_training(untracked(stopped))
    run_training(stopped)
    assert histories(stopped) == histories(whole)
    assert mlflow_run(stopped).info.status == "FINISHED"


@pytest.mark.slow
def test_a_server_that_begins_to_hang_holds_nobody_up(training: MakeTraining, tmp_path: Path) -> None:
    """Its own watchdog would end the run: no step may take the 20 seconds that a request waits for an answer."""
    whole, hung = training("whole"), training("hung", "train.checkpoint_every=1", "train.hang_timeout=15")
    run_training(whole)
    with run_mlflow_server(tmp_path) as url, proxied(url) as proxy:
        proxy.fault = lambda request: Fault(stall=3600) if request.path.endswith("log-batch") else None
        behind = hung.model_copy(update={"tracking": hung.tracking.model_copy(update={"uri": proxy.url})})
        with hurried():
            assert run_training(behind).state == "done"
        assert any(request.path.endswith("log-batch") for request in proxy.requests)
        proxy.fault = lambda request: None
        assert deliver_left_behind(behind, run_store(behind))
        assert histories(behind) == histories(whole)


def test_a_stopped_run_is_scheduled(training: MakeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = training("scheduled")
    signal_at(monkeypatch, 1)
    with pytest.raises(StoppedEarly):
        run_training(cfg)
    assert mlflow_run(cfg).info.status == "SCHEDULED"


def test_each_node_is_watched_by_its_first_rank(training: MakeTraining, tmp_path: Path) -> None:
    cfg = training("nodes", "tracking.system_seconds=0.6")
    run = run_store(cfg)
    for rank, local in ((0, 0), (1, 1), (2, 0)):
        world = World(rank, 4, local, torch.device("cpu"), nodes=2)
        with open_record(cfg, run, world, tmp_path / str(rank)) as tracker:
            assert (tracker is not None) == (rank == 0)
            end = time.monotonic() + 60
            while local == 0 and f"node-{rank // 2}" not in watched(cfg):
                assert time.monotonic() < end
                time.sleep(0.2)
    assert watched(cfg) == {"node-0", "node-1"}


def watched(cfg: Config) -> set[str]:
    if not run_store(cfg).exists("mlflow.json"):
        return set()
    return {name.split("/")[1] for name in mlflow_run(cfg).data.metrics if name.startswith("system/")}
