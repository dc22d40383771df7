"""Training with a run, its checkpoints or its dataset on a real S3 server, and with a copy once the server is gone."""

import os
import signal
from pathlib import Path

import pytest
from drawn import Drawn
from drawn_runs import small_config
from s3_server import run_s3_server
from training import signal_at, weights

from pipeline.checkpoints import list_checkpoints
from pipeline.config.schema import Config
from pipeline.errors import StoppedEarly
from pipeline.layout import run_store
from pipeline.staging import stage
from pipeline.storage import open_store
from train.launch import run_training
from train.status import read_status


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_run_on_s3_continues_bit_for_bit(drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(name: str, root: str) -> Config:
        return small_config(
            tmp_path,
            f"storage.root='{root}'",
            f"run.name={name}",
            f"data.dataset='{drawn.store.url}'",
            f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}",
            f"launch.scratch='{tmp_path / 'scratch'}'",
            *("launch.threads=1", "train.launcher=none", "train.steps=5", "train.checkpoint_every=2"),
            *("train.global_batch=4", "train.micro_batch=4", "train.val_clips=0", "train.keep_last=2"),
        )

    local = make("local", str(tmp_path / "root"))
    run_training(local)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with run_s3_server(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        remote = make("remote", f"s3://{server.bucket}/training")
        with monkeypatch.context() as patch:
            signal_at(patch, 3, signal.SIGUSR2)
            with pytest.raises(StoppedEarly):
                run_training(remote)
        assert [checkpoint.step for checkpoint in list_checkpoints(run_store(remote))] == [2, 3]
        run_training(remote)
        assert read_status(run_store(remote)).state == "done"  # type: ignore[union-attr]
        assert [checkpoint.step for checkpoint in list_checkpoints(run_store(remote))] == [4, 5]
        assert weights(remote, tmp_path / "a") == weights(local, tmp_path / "b")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_dataset_on_s3_and_its_staged_copy_train_the_same(
    drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(name: str, dataset: str) -> tuple[dict[str, bytes], str]:
        cfg = small_config(
            tmp_path,
            f"run.name={name}",
            f"data.dataset='{dataset}'",
            f"launch.scratch='{tmp_path / 'scratch'}'",
            *("launch.threads=1", "train.launcher=none", "train.steps=3", "train.global_batch=4"),
            *("train.micro_batch=4", "train.val_clips=4"),
        )
        run_training(cfg)
        [checkpoint] = list_checkpoints(run_store(cfg))
        return weights(cfg, tmp_path / f"weights-{name}"), checkpoint.info["dataset"]

    copy = tmp_path / "copy"
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with run_s3_server(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{server.bucket}/faces")
        for info in drawn.store.list():
            store.write(info.key, drawn.store.read(info.key))
        remote = train("remote", store.url)
        stage(store, open_store(str(copy)), progress=False)
    assert train("staged", str(copy)) == train("local", drawn.store.url) == remote
    assert remote[1] == drawn.dataset.identity
