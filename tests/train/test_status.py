"""The word of how a run ended: the first cause stays, whoever else writes."""

from pathlib import Path

import pytest

from pipeline.errors import MarlinError, StoppedEarly, UsageError
from pipeline.storage import ConditionalPutsIgnored, Store, open_store
from pipeline.storage.local import LocalStore
from train.status import Status, change_status, read_status, write_failure, write_status


@pytest.fixture
def run(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def test_the_first_failure_stays(run: Store) -> None:
    write_failure(run, UsageError("cause"), 7)
    write_failure(run, MarlinError("consequence"), 8)
    assert read_status(run) == Status("failed", 7, "cause", usage=True)


def test_a_failure_before_the_first_step_keeps_the_steps_of_before(run: Store) -> None:
    write_status(run, Status("running", 40))
    write_failure(run, ValueError("no\nmore"))
    assert read_status(run) == Status("failed", 40, "ValueError: no")


def test_a_stop_is_no_failure(run: Store) -> None:
    write_failure(run, StoppedEarly("enough"), 3)
    assert read_status(run) == Status("resumable", 3, "enough")


def test_a_word_between_reading_and_writing_is_not_lost(run: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_status(run, Status("running", 1))
    replace = LocalStore.replace

    def late(self: LocalStore, key: str, data: bytes, version: str) -> str:
        monkeypatch.undo()
        write_failure(run, MarlinError("cause"), 2)  # another rank, just before
        return replace(self, key, data, version)

    monkeypatch.setattr(LocalStore, "replace", late)
    write_failure(run, MarlinError("consequence"), 3)
    assert read_status(run) == Status("failed", 2, "cause")


def test_a_server_without_conditional_puts_gets_the_word_all_the_same(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ignored(self: LocalStore, key: str, data: bytes) -> None:
        raise ConditionalPutsIgnored("ignored")

    monkeypatch.setattr(LocalStore, "create", ignored)
    write_failure(run, MarlinError("cause"), 2)
    assert read_status(run) == Status("failed", 2, "cause")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"state": "done"}'])
def test_what_is_no_status_is_replaced(run: Store, content: bytes) -> None:
    run.write("status.json", content)
    assert read_status(run) is None
    change_status(run, lambda before: Status("running", 5) if before is None else None)
    assert read_status(run) == Status("running", 5)
