"""Publication: the manifest comes last, or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoints import fetch_checkpoint, list_checkpoints, publish_checkpoint
from pipeline.errors import MarlinError
from pipeline.storage import Denied, Store, open_store
from pipeline.storage.local import LocalStore
from train.publish import Publisher
from train.retention import Retention
from train.world import World

LEAD = World(0, 1, 0, torch.device("cpu"))


@pytest.fixture
def run(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


@pytest.fixture
def publisher(run: Store, tmp_path: Path) -> Publisher:
    return Publisher(run, tmp_path / "scratch", LEAD, Retention(last=2), patience=1)


def save(content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "generator").mkdir()
        for name in ("a", "b", "generator/c"):
            (folder / name).write_text(content)

    return write


def test_publishes_every_file_and_leaves_no_local_copy(publisher: Publisher, run: Store, tmp_path: Path) -> None:
    publisher.publish(3, save("x"), {"note": 1})
    publisher.wait()
    [found] = list_checkpoints(run)
    assert [entry.name for entry in found.files] == ["a", "b", "generator/c"]
    assert found.info == {"note": 1}
    assert (fetch_checkpoint(run, found, tmp_path / "f") / "generator" / "c").read_text() == "x"
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("failing", ["a", "generator/c"])
def test_an_upload_that_fails_publishes_nothing_and_says_so(
    publisher: Publisher, run: Store, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    publisher.publish(1, save("old"), {})
    publisher.wait()
    write_file = LocalStore.write_file

    def broken(self: LocalStore, key: str, path: Path) -> None:
        if key.endswith(f"/{failing}"):
            raise MarlinError("the line was cut")
        write_file(self, key, path)

    monkeypatch.setattr(LocalStore, "write_file", broken)
    publisher.publish(2, save("new"), {})
    with pytest.raises(MarlinError, match="the line was cut"):
        publisher.wait()
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [1]
    monkeypatch.undo()
    publisher.publish(2, save("new"), {})
    publisher.wait()
    assert [checkpoint.name for checkpoint in list_checkpoints(run)] == ["step-00000001.r0", "step-00000002.r0"]


def test_the_manifest_is_put_after_every_file(
    publisher: Publisher, run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for method in ("write_file", "create"):
        plain: Any = getattr(LocalStore, method)
        monkeypatch.setattr(
            LocalStore, method, lambda self, key, *rest, f=plain: (order.append(key), f(self, key, *rest))[1]
        )
    publisher.publish(1, save("x"), {})
    publisher.wait()
    assert len(order) == 4
    assert order[-1] == "checkpoints/step-00000001.r0.manifest.json"


def test_old_checkpoints_and_replaced_revisions_go(publisher: Publisher, run: Store, tmp_path: Path) -> None:
    for step in (1, 2, 2, 3):
        publisher.publish(step, save(str(step)), {})
    publisher.wait()
    assert [checkpoint.name for checkpoint in list_checkpoints(run)] == ["step-00000002.r1", "step-00000003.r0"]
    manifests = [item.key for item in run.list("checkpoints/") if item.key.endswith(".json")]
    assert len(manifests) == 2
    files = [item.key for item in run.list("checkpoints/") if not item.key.endswith(".json")]
    assert len(files) == 6


def test_cleaning_that_is_refused_costs_a_warning(
    publisher: Publisher, run: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: LocalStore, prefix: str) -> None:
        raise Denied("access denied: ask the owner of the bucket")

    monkeypatch.setattr(LocalStore, "remove_unfinished", refuse)
    run.write("checkpoints/step-00000001/killed/a", b"half")
    publisher.remove_leftovers()
    for step in (1, 2, 3):
        publisher.publish(step, save(str(step)), {})
    publisher.wait()
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [2, 3]
    assert not list(run.list("checkpoints/step-00000001"))
    assert "stays for now: access denied" in caplog.text


def test_a_rank_that_never_finishes_is_named(run: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.publish._shared_name", lambda world: "shared")
    publisher = Publisher(run, tmp_path / "scratch", World(0, 2, 0, torch.device("cpu")), Retention(last=2), patience=0)
    publisher.publish(1, save("x"), {})
    with pytest.raises(MarlinError, match="rank 1 did not finish uploading checkpoints/step-00000001/shared"):
        publisher.wait()
    assert list_checkpoints(run) == []


def test_the_files_of_all_ranks_are_in_one_manifest(
    run: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.publish._shared_name", lambda world: "shared")
    worlds = [World(rank, 2, rank, torch.device("cpu")) for rank in (0, 1)]
    publishers = [Publisher(run, tmp_path / f"scratch-{w.rank}", w, Retention(last=2), patience=60) for w in worlds]
    for rank, publisher in enumerate(publishers):
        publisher.publish(1, lambda folder, rank=rank: (folder / f"rank-{rank}").write_text("x"), {})
    for publisher in publishers:
        publisher.wait()
    [found] = list_checkpoints(run)
    assert [entry.name for entry in found.files] == ["rank-0", "rank-1"]
    assert len(list(run.list("checkpoints/"))) == 3  # the receipt is gone


def test_a_manifest_is_never_overwritten(run: Store) -> None:
    names = [publish_checkpoint(run, 1, f"checkpoints/step-00000001/{i}", [], {}).name for i in range(2)]
    assert names == ["step-00000001.r0", "step-00000001.r1"]
