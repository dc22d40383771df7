"""Training with a run, its checkpoints or its dataset on a real S3 server, and with a copy once the server is gone."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from drawn import Drawn
from drawn_runs import small_config
from faults import storm
from proxy import Fault, Request, proxied
from s3_server import S3Server, run_s3_server
from training import MakeTraining, marlin, signal_at, start_marlin, weights, write_config

from pipeline.checkpoints import fetch_checkpoint, list_checkpoints, list_revisions
from pipeline.config.schema import Config
from pipeline.errors import StoppedEarly
from pipeline.layout import run_store
from pipeline.staging import stage
from pipeline.storage import open_store
from pipeline.storage.s3 import S3Store
from train.launch import run_training
from train.status import read_status


@pytest.fixture
def make(drawn: Drawn, tmp_path: Path) -> MakeTraining:
    """Configurations of small runs over a local dataset: `make(name, root, …)`."""

    def make(name: str, root: str, *overrides: str) -> Config:
        return small_config(
            tmp_path,
            f"storage.root='{root}'",
            f"run.name={name}",
            f"data.dataset='{drawn.store.url}'",
            f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}",
            f"launch.scratch='{tmp_path / 'scratch'}'",
            *("launch.threads=1", "train.launcher=none", "train.steps=5", "train.checkpoint_every=2"),
            *("train.global_batch=4", "train.micro_batch=4", "train.val_clips=0", "train.keep_last=2"),
            *overrides,
        )

    return make


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_run_on_s3_continues_bit_for_bit(
    make: MakeTraining, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, remote = make("local", str(tmp_path / "root")), make("remote", s3_url)
    run_training(local)
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
def test_a_run_through_a_storm_of_faults_ends_as_an_undisturbed_one(
    make: MakeTraining, s3_server: S3Server, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, remote = (
        make(name, root, "train.checkpoint_every=1") for name, root in (("a", str(tmp_path)), ("b", s3_url))
    )
    run_training(local)
    with proxied(s3_server.endpoint) as proxy, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.fault = storm(seed=3, share=0.2, stall=10)
        assert run_training(remote).state == "done"
    published = list_revisions(run_store(remote))
    assert published[-1].step == 5
    for checkpoint in published:
        fetch_checkpoint(run_store(remote), checkpoint, tmp_path / checkpoint.name)
    assert weights(remote, tmp_path / "a") == weights(local, tmp_path / "b")


@pytest.mark.slow
def test_a_second_signal_leaves_at_once_and_half_an_upload_is_never_published(
    make: MakeTraining, s3_server: S3Server, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = make("twice", s3_url, "train.launcher=torchrun", "train.steps=400", "train.checkpoint_every=400")
    path, run = write_config(cfg, tmp_path / "twice.yaml"), run_store(cfg)
    assert isinstance(run, S3Store)
    uploading = threading.Event()

    def hold(request: Request) -> Fault | None:
        if request.method == "PUT" and request.path.endswith(".pt"):
            uploading.set()
            return Fault(stall=3600)
        return None

    with proxied(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.fault = hold
        with start_marlin(["--log", "json", "train", "-c", path]) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if json.loads(line).get("step") == 2:
                    break
            os.killpg(process.pid, signal.SIGTERM)
            assert uploading.wait(120)
            os.killpg(process.pid, signal.SIGTERM)
            _, err = process.communicate(timeout=120)
        assert process.returncode == 75, err
        assert read_status(run).state == "resumable"  # type: ignore[union-attr]
        assert list_checkpoints(run) == []
        assert any(item.key.endswith("config.yaml") for item in run.list("checkpoints/"))
        proxy.fault = lambda request: None
        rest = marlin("train", "-c", path, "train.steps=2")
    assert rest.returncode == 0, rest.stderr
    [checkpoint] = list_checkpoints(run)
    files = {f"{checkpoint.prefix}/{entry.name}" for entry in checkpoint.files}
    assert {item.key for item in run.list("checkpoints/")} == files | {f"checkpoints/{checkpoint.name}.manifest.json"}


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
