"""`marlin dataset stage`: a whole verified copy or none, whatever happens on the way."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxy import Fault, Proxy, Request, proxied
from s3_server import S3Server
from synthetic import DrawnTrack, write_dataset

from pipeline.cli import main
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.staging import stage
from pipeline.storage import Store, open_store
from pipeline.storage.manifest import to_json

REPOSITORY = Path(__file__).parents[2]
TRACKS = [DrawnTrack(f"{name}.mp4", train=(32, 33), val=(32,)) for name in "abcdef"]
CONFIG = "{{train: {{steps: 1}}, data: {{dataset: '{url}'}}}}"


def files(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def source(tmp_path: Path) -> Store:
    """A dataset with an exclusion list, and with objects that do not belong to it."""
    store = open_store(str(tmp_path / "source"))
    write_dataset(store, TRACKS, label_maps=False)
    info = json.loads(store.read("dataset.json"))
    excluded = to_json({"schema": 2, "excluded": [{"key": "k", "reason": "r", "kept": "o"}]})
    store.write("exclusions/x.json", excluded)
    info["exclusions"] = {
        "name": "exclusions/x.json",
        "size": len(excluded),
        "sha256": hashlib.sha256(excluded).hexdigest(),
    }
    store.write("dataset.json", to_json(info))
    store.write("shards/stray.tar", b"of a killed attempt")
    store.write("plan.json", b"{}")
    return store


def wanted(source: Store) -> dict[str, bytes]:
    return {
        info.key: source.read(info.key) for info in source.list() if info.key not in ("shards/stray.tar", "plan.json")
    }


def to(folder: Path) -> Store:
    return open_store(str(folder))


def test_a_copy_is_the_dataset(source: Store, tmp_path: Path) -> None:
    done = stage(source, to(tmp_path / "copy"), progress=False)
    assert files(tmp_path / "copy") == wanted(source)
    assert load_dataset(to(tmp_path / "copy")).identity == load_dataset(source).identity
    assert done.files == done.new_files == len(wanted(source)) - 1


def test_what_is_there_stays(source: Store, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    stage(source, to(copy), progress=False)
    lost = sorted(copy.glob("shards/*"))[:2]
    lost[0].unlink()
    lost[1].write_bytes(b"short")
    before = {path: path.stat().st_mtime_ns for path in copy.glob("shards/*") if path not in lost}
    done = stage(source, to(copy), progress=False)
    assert files(copy) == wanted(source)
    assert done.new_files == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert stage(source, to(copy), progress=False).new_files == 0


def test_damage_is_refused_and_the_copy_stays_unfinished(source: Store, tmp_path: Path) -> None:
    shard = next(iter(load_dataset(source).shards))
    good = source.read(shard)
    source.write(shard, good[:-1] + b"x")
    with pytest.raises(MarlinError, match=rf"{shard} is not the file that the dataset lists"):
        stage(source, to(tmp_path / "copy"), progress=False)
    assert not (tmp_path / "copy" / shard).exists()
    with pytest.raises(MarlinError, match="holds no finished dataset"):
        load_dataset(to(tmp_path / "copy"))
    source.write(shard, good)
    stage(source, to(tmp_path / "copy"), progress=False)
    assert files(tmp_path / "copy") == wanted(source)


def test_other_folders_are_left_alone(source: Store, tmp_path: Path) -> None:
    other = to(tmp_path / "other")
    write_dataset(other, TRACKS[:1], label_maps=False)
    before = files(tmp_path / "other")
    with pytest.raises(UsageError, match="other holds another dataset than"):
        stage(source, other, progress=False)
    assert files(tmp_path / "other") == before
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years")
    with pytest.raises(UsageError, match="home is not empty"):
        stage(source, to(tmp_path / "home"), progress=False)
    assert list(files(tmp_path / "home")) == ["thesis.tex"]


def test_a_half_copy_of_another_dataset_is_refused(source: Store, tmp_path: Path) -> None:
    shard = next(iter(load_dataset(source).shards))
    data = source.read(shard)
    source.write(shard, b"x" * len(data))
    with pytest.raises(MarlinError):
        stage(source, to(tmp_path / "copy"), progress=False)
    source.write(shard, data)
    other = to(tmp_path / "other")
    write_dataset(other, TRACKS[:2], label_maps=False)
    with pytest.raises(UsageError, match="half copy of another dataset"):
        stage(other, to(tmp_path / "copy"), progress=False)


@pytest.mark.usefixtures("s3_server")
def test_only_folders_are_targets(source: Store, s3_url: str) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        stage(source, open_store(s3_url), progress=False)


def test_room_is_asked_for_before_anything_is_copied(
    source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(len(data) for name, data in wanted(source).items() if name != "dataset.json")

    def free(size: int) -> None:
        usage: Any = shutil._ntuple_diskusage(10 * size, 9 * size, size)  # type: ignore[attr-defined]
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    free(needed - 1)
    with pytest.raises(MarlinError, match=r"copy needs .* more and the disk has .* free"):
        stage(source, to(tmp_path / "copy"), progress=False)
    assert list(files(tmp_path / "copy")) == ["staging.json"]
    free(needed)
    stage(source, to(tmp_path / "copy"), progress=False)


def test_a_dataset_that_changes_meanwhile_is_told(
    source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = source.read("dataset.json")

    def load(store: Store) -> Any:
        dataset = load_dataset(store)
        store.write("dataset.json", before + b"\n")
        return dataset

    monkeypatch.setattr("pipeline.staging.load_dataset", load)
    with pytest.raises(MarlinError, match=r"dataset\.json was replaced meanwhile"):
        stage(source, to(tmp_path / "copy"), progress=False)


def test_two_at_a_time_are_refused(source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = []

    def again(folder: Path, needed: int) -> None:
        with pytest.raises(MarlinError, match="another `marlin dataset stage` is at work") as caught:
            stage(source, to(folder), progress=False)
        messages.append(caught.value)

    monkeypatch.setattr("pipeline.staging._check_room", again)
    stage(source, to(tmp_path / "copy"), progress=False)
    assert len(messages) == 1
    assert files(tmp_path / "copy") == wanted(source)


def test_the_command_says_what_to_set(source: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(url=source.url))
    copy = tmp_path / "copy"
    assert main(["dataset", "stage", "-c", str(config), str(copy), "--parallel", "2"]) == 0
    assert f"set data.dataset={copy}" in capsys.readouterr().out
    assert main(["dataset", "stage", "-c", str(config), str(copy), f"data.dataset={tmp_path / 'none'}"]) == 1
    assert "none holds no finished dataset" in capsys.readouterr().err


@pytest.fixture
def remote(
    source: Store, s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Store, Proxy]]:
    """The dataset on a real S3 server behind a proxy."""
    with proxied(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = open_store(s3_url)
        for info in source.list():
            store.write(info.key, source.read(info.key))
        proxy.requests.clear()
        yield store, proxy


def command(store: Store, folder: Path) -> "subprocess.Popen[str]":
    config = folder.parent / "c.yaml"
    config.write_text(CONFIG.format(url=store.url))
    arguments = ["dataset", "stage", "-c", str(config), str(folder), "--parallel", "1"]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def shards_asked(proxy: Proxy) -> set[str]:
    return {request.path.rpartition("/")[2] for request in proxy.requests if request.path.endswith(".tar")}


def whole_shards(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("shards/*.tar")}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_command_goes_on_where_it_was(
    remote: tuple[Store, Proxy], source: Store, tmp_path: Path, number: signal.Signals
) -> None:
    store, proxy = remote
    copy = tmp_path / "copy"

    def slow(request: Request) -> Fault | None:
        time.sleep(0.5 if request.path.endswith(".tar") else 0)
        return None

    proxy.fault = slow
    process = command(store, copy)
    while len(whole_shards(copy)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 75), err
    there = whole_shards(copy)
    assert 2 <= len(there) < len(TRACKS)
    assert not (copy / "dataset.json").exists()
    proxy.requests.clear()
    proxy.fault = lambda request: None
    process = command(store, copy)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert files(copy) == wanted(source)
    assert not shards_asked(proxy) & there
