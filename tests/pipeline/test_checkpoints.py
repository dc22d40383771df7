"""Published checkpoints: whole or not at all, revisions, damage found by whoever fetches."""

import logging
from pathlib import Path

import pytest

from pipeline.checkpoints import (
    Checkpoint,
    delete_checkpoint,
    fetch_checkpoint,
    list_checkpoints,
    list_revisions,
    publish_checkpoint,
)
from pipeline.errors import MarlinError
from pipeline.storage import Store, open_store
from pipeline.storage.manifest import FileEntry, sha256_file


def publish(run: Store, folder: Path, step: int, attempt: str = "a", content: bytes = b"weights") -> Checkpoint:
    path = folder / "file"
    path.write_bytes(content)
    prefix = f"checkpoints/step-{step:08d}/{attempt}"
    run.write_file(f"{prefix}/model.safetensors", path)
    run.write_file(f"{prefix}/generator/state.pt", path)
    entries = [FileEntry(name, len(content), sha256_file(path)) for name in ("model.safetensors", "generator/state.pt")]
    return publish_checkpoint(run, step, prefix, entries, {"samples": 4 * step})


def test_what_is_published_is_listed_and_fetched(store: Store, tmp_path: Path) -> None:
    made = [publish(store, tmp_path, step) for step in (10, 2)]
    found = list_checkpoints(store)
    assert found == made[::-1]
    assert [checkpoint.name for checkpoint in found] == ["step-00000002.r0", "step-00000010.r0"]
    assert found[1].info == {"samples": 40}
    folder = fetch_checkpoint(store, found[1], tmp_path / "all")
    assert (folder / "generator" / "state.pt").read_bytes() == b"weights"
    folder = fetch_checkpoint(store, found[1], tmp_path / "some", ["model.safetensors"])
    assert [path.name for path in folder.rglob("*")] == ["model.safetensors"]


def test_files_without_a_manifest_do_not_exist(store: Store) -> None:
    store.write("checkpoints/step-00000001/a/model.safetensors", b"half")
    store.write("checkpoints/step-00000001.r0.manifest.json.part", b"{}")
    assert list_checkpoints(store) == []


def test_a_step_published_again_is_the_next_revision(store: Store, tmp_path: Path) -> None:
    publish(store, tmp_path, 5, "a", b"old")
    publish(store, tmp_path, 5, "b", b"new")
    assert [checkpoint.name for checkpoint in list_revisions(store)] == ["step-00000005.r0", "step-00000005.r1"]
    [newest] = list_checkpoints(store)
    assert newest.name == "step-00000005.r1"
    assert (fetch_checkpoint(store, newest, tmp_path / "f") / "model.safetensors").read_bytes() == b"new"


def test_ten_revisions_are_ordered_by_number(tmp_path: Path) -> None:
    run = open_store(str(tmp_path / "run"))
    for attempt in range(11):
        publish(run, tmp_path, 5, f"a{attempt}")
    assert list_checkpoints(run)[0].revision == 10


@pytest.mark.parametrize("content", [b"weighty", b"weight", b"weights and more"])
def test_a_damaged_file_is_found(store: Store, tmp_path: Path, content: bytes) -> None:
    made = publish(store, tmp_path, 1)
    store.write(f"{made.prefix}/generator/state.pt", content)
    with pytest.raises(MarlinError, match=r"step-00000001\.r0 .*generator/state\.pt is damaged"):
        fetch_checkpoint(store, made, tmp_path / "f")


def test_a_missing_file_is_found(store: Store, tmp_path: Path) -> None:
    made = publish(store, tmp_path, 1)
    store.delete(f"{made.prefix}/model.safetensors")
    with pytest.raises(MarlinError, match=r"model\.safetensors"):
        fetch_checkpoint(store, made, tmp_path / "f")


def test_a_damaged_manifest_is_left_out_with_a_warning(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(store, tmp_path, 1)
    publish(store, tmp_path, 2)
    for content in (b"", b'{"schema": 1, "st', b"[]", b"\xff", b'{"schema": 1}', b'{"schema": 1, "files": [{}]}'):
        store.write("checkpoints/step-00000002.r0.manifest.json", content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert [checkpoint.step for checkpoint in list_checkpoints(store)] == [1], content
        assert "step-00000002.r0.manifest.json: the manifest is damaged" in caplog.text


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    run = open_store(str(tmp_path / "run"))
    run.write("checkpoints/step-00000002.r0.manifest.json", b'{"schema": 2}')
    with pytest.raises(MarlinError, match="has schema 2, this version reads 1"):
        list_checkpoints(run)


def test_deleting_withdraws_the_manifest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_store(str(tmp_path / "run"))
    made = publish(run, tmp_path, 1)
    order: list[str] = []
    delete = type(run).delete
    monkeypatch.setattr(type(run), "delete", lambda self, key: (order.append(key), delete(self, key))[1])
    delete_checkpoint(run, made)
    assert order[0] == "checkpoints/step-00000001.r0.manifest.json"
    assert list(run.list()) == []
