"""`marlin wait`: until a dataset is there or a training is done."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.errors import MarlinError, StoppedEarly
from pipeline.layout import dataset_store, run_store
from pipeline.marks import marked, reached
from pipeline.storage import Store, Unavailable, open_store
from pipeline.wait import Awaited, wait_for
from train.status import Status, write_status


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    return load_config("demo", [f"storage.root={tmp_path}", "eval.poll_seconds=0.05"])


@pytest.fixture
def waiting() -> Iterator[Callable[[Config, Awaited], "Future[None]"]]:
    with ThreadPoolExecutor() as pool:

        def begin(cfg: Config, awaited: Awaited) -> "Future[None]":
            future = pool.submit(wait_for, cfg, awaited)
            time.sleep(0.3)
            return future

        yield begin


Waiting = Callable[[Config, Awaited], "Future[None]"]


def test_the_dataset_is_waited_for(cfg: Config, waiting: Waiting) -> None:
    waits = waiting(cfg, "dataset")
    assert not waits.done()
    dataset_store(cfg).write("dataset.json", b"{}")
    waits.result(timeout=5)


def test_all_datasets_of_a_mix_are_waited_for(cfg: Config, waiting: Waiting, tmp_path: Path) -> None:
    urls = [str(tmp_path / name) for name in ("a", "b")]
    mix = ", ".join(f"{{dataset: {url}, weight: 1}}" for url in urls)
    several = load_config("demo", [f"storage.root={tmp_path}", "eval.poll_seconds=0.05", f"data.mix=[{mix}]"])
    open_store(urls[0]).write("dataset.json", b"{}")
    waits = waiting(several, "dataset")
    assert not waits.done()
    open_store(urls[1]).write("dataset.json", b"{}")
    waits.result(timeout=5)


def test_drawn_data_need_no_dataset(tmp_path: Path) -> None:
    wait_for(load_config("demo", [f"storage.root={tmp_path}", "data.source=synthetic"]), "dataset")


@pytest.mark.parametrize("before", [None, Status("running", 0), Status("resumable", 3, "submitted")])
def test_the_training_is_waited_for(cfg: Config, waiting: Waiting, before: Status | None) -> None:
    if before is not None:
        write_status(run_store(cfg), before)
    waits = waiting(cfg, "training")
    assert not waits.done()
    write_status(run_store(cfg), Status("resumable", 4, "stopped"))
    time.sleep(0.2)
    assert not waits.done()
    write_status(run_store(cfg), Status("done", 5))
    waits.result(timeout=5)


def test_a_training_that_fails_ends_the_wait(cfg: Config, waiting: Waiting) -> None:
    waits = waiting(cfg, "training")
    write_status(run_store(cfg), Status("failed", 3, "out of disk"))
    with pytest.raises(MarlinError, match="the training failed: out of disk"):
        waits.result(timeout=5)


def test_the_dataset_of_an_earlier_submission_does_not_count(cfg: Config) -> None:
    dataset_store(cfg).write("dataset.json", b"{}")
    run = run_store(cfg)
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(wait_for, cfg, "dataset", "demo-abc123")
        with marked(run, "demo-0"):
            pass
        time.sleep(0.3)
        assert not waits.done()
        with marked(run, "demo-abc123"):
            assert not waits.done()
        waits.result(timeout=5)


def test_preprocessing_that_fails_ends_the_wait(cfg: Config) -> None:
    run = run_store(cfg)
    with pytest.raises(MarlinError, match="no video"), marked(run, "demo-abc123"):
        raise MarlinError("/data holds no video")
    with pytest.raises(MarlinError, match="demo-abc123: preprocessing failed: /data holds no video"):
        wait_for(cfg, "dataset", "demo-abc123")
    with pytest.raises(MarlinError, match="no video"), marked(run, "demo-abc123"):
        pytest.fail("a further cluster would do it again")


@pytest.mark.parametrize("error", [StoppedEarly("drained"), Unavailable("storage is away"), MemoryError()])
def test_what_another_try_may_mend_leaves_no_mark(cfg: Config, error: Exception) -> None:
    run = run_store(cfg)
    with pytest.raises(type(error)), marked(run, "demo-abc123"):
        raise error
    assert not reached(run, "demo-abc123")


@pytest.mark.usefixtures("restored")
def test_the_command_leaves_the_mark(cfg: Config, tmp_path: Path) -> None:
    given = ["-c", "demo", f"storage.root={tmp_path}", f"corpus.path={tmp_path}/nowhere", "corpus.kind=folder"]
    assert main(["preprocess", *given, "--mark", "x"]) != 0
    assert main(["wait", *given, "--for", "dataset", "--mark", "x"]) == 1
    assert main(["wait", *given, "--for", "training", "--mark", "x"]) == 2


@pytest.mark.parametrize("awaited", ["dataset", "training"])
def test_storage_that_is_away_is_asked_again(
    cfg: Config,
    waiting: Waiting,
    awaited: Awaited,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, away = dataset_store(cfg), threading.Event()

    def unreachable(real: Callable[[Store, str], object]) -> Callable[[Store, str], object]:
        def asked(self: Store, key: str) -> object:
            if away.is_set():
                raise Unavailable("storage is away")
            return real(self, key)

        return asked

    for method in ("exists", "read"):
        monkeypatch.setattr(type(store), method, unreachable(getattr(type(store), method)))
    store.write("dataset.json", b"{}")
    write_status(run_store(cfg), Status("done", 5))
    away.set()
    waits = waiting(cfg, awaited)
    assert not waits.done()
    away.clear()
    waits.result(timeout=5)
    assert "looking again" in caplog.text


@pytest.mark.usefixtures("restored")
def test_the_command_waits(cfg: Config, tmp_path: Path) -> None:
    dataset_store(cfg).write("dataset.json", b"{}")
    assert main(["wait", "-c", "demo", "--for", "dataset", f"storage.root={tmp_path}"]) == 0
