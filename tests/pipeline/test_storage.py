"""One suite for both storage backends: what every `Store` promises."""

import hashlib
import pickle
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import MarlinError
from pipeline.storage import AlreadyExists, Conflict, InvalidKey, NotFound, ObjectInfo, Store, open_store
from pipeline.storage.atomic import COPY_BYTES
from pipeline.storage.manifest import sha256_file

ODD_KEYS = ["a b/ü+%#?&=.txt", "ünïcode/文件", "plus+plus", "100%/x", "'quotes\"", "~tilde", ".hidden"]
THREADS = 8


def contents(store: Store) -> dict[str, bytes]:
    return {info.key: store.read(info.key) for info in store.list()}


def test_a_written_object_reads_back_and_is_replaced_by_the_next_write(store: Store) -> None:
    store.write("folder/key", b"first")
    store.write("folder/key", b"second, longer")
    assert store.read("folder/key") == b"second, longer"
    assert store.size("folder/key") == 14
    assert store.exists("folder/key")


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.write("empty", b"")
    assert store.read("empty") == b""
    assert list(store.list()) == [ObjectInfo("empty", 0)]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_characters_survive(store: Store, key: str) -> None:
    store.write(key, key.encode())
    assert contents(store) == {key: key.encode()}


@pytest.mark.parametrize(
    "key", ["", "/abs", "../up", "a/../b", "a//b", "a/", "./a", ".", "nul\0", "a\nb", "a\\b", ".tmp-x/y"]
)
def test_keys_that_could_leave_the_store_are_refused(store: Store, key: str) -> None:
    operations: list[Callable[[], object]] = [
        lambda: store.write(key, b""),
        lambda: store.read(key),
        lambda: store.create(key, b""),
        lambda: store.delete(key),
        lambda: store.local_path(key),
        lambda: store.fetch(key, Path("never-written")),
    ]
    for operation in operations:
        with pytest.raises(InvalidKey):
            operation()
    assert contents(store) == {}


def test_what_is_absent_is_not_found(store: Store, tmp_path: Path) -> None:
    store.write("folder/key", b"data")
    for key in ("absent", "folder", "folder/absent", "folder/key/below"):
        assert not store.exists(key)
        operations: list[Callable[[], object]] = [
            lambda key=key: store.read(key),  # type: ignore[misc]
            lambda key=key: store.read_range(key, 0, 1),  # type: ignore[misc]
            lambda key=key: next(store.stream(key)),  # type: ignore[misc]
            lambda key=key: store.read_versioned(key),  # type: ignore[misc]
            lambda key=key: store.size(key),  # type: ignore[misc]
            lambda key=key: store.fetch(key, tmp_path / "copy"),  # type: ignore[misc]
        ]
        for operation in operations:
            with pytest.raises(NotFound, match=key):
                operation()
    assert not (tmp_path / "copy").exists()
    assert list(tmp_path.glob(".tmp-*")) == []


def test_ranges_are_exact(store: Store) -> None:
    store.write("key", bytes(range(100)))
    assert store.read_range("key", 10, 5) == bytes(range(10, 15))
    assert store.read_range("key", 99, 1) == b"c"
    assert store.read_range("key", 0, 100) == bytes(range(100))
    assert store.read_range("key", 50, 0) == b""
    for start, length in ((99, 2), (100, 1), (1000, 10)):
        with pytest.raises(MarlinError, match=f"ends before byte {start + length}"):
            store.read_range("key", start, length)


@pytest.mark.parametrize("size", [0, 1, COPY_BYTES, 3 * COPY_BYTES + 1])
def test_a_stream_is_the_object_in_pieces(store: Store, size: int) -> None:
    data = random.Random(size).randbytes(size)
    store.write("key", data)
    pieces = list(store.stream("key"))
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= COPY_BYTES for piece in pieces)


def test_listing_is_sorted_by_key_and_filtered_by_prefix(store: Store) -> None:
    keys = ["a/b", "a-b", "a.b", "a/b2", "a/c/d", "b", "aa"]
    for key in keys:
        store.write(key, b"x")
    assert [info.key for info in store.list()] == sorted(keys)
    assert [info.key for info in store.list("a/")] == ["a/b", "a/b2", "a/c/d"]
    assert [info.key for info in store.list("a/b")] == ["a/b", "a/b2"]
    assert list(store.list("nothing/here")) == []
    with pytest.raises(InvalidKey):
        store.list("../")


def test_listing_goes_over_several_pages(store: Store) -> None:
    keys = [f"many/{number:04d}" for number in range(1100)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda key: store.write(key, b""), keys))
    assert [info.key for info in store.list("many/")] == keys


def test_a_sub_store_shows_the_same_objects(store: Store) -> None:
    store.at("runs/a").write("key", b"data")
    assert store.read("runs/a/key") == b"data"
    assert store.at("runs").at("a").url == store.url + "/runs/a"
    assert [info.key for info in store.at("runs").list()] == ["a/key"]
    with pytest.raises(InvalidKey):
        store.at("../other")


def test_delete_removes_and_forgives_absence(store: Store) -> None:
    store.write("folder/key", b"data")
    store.delete("folder/key")
    store.delete("folder/key")
    store.delete("never/was")
    assert contents(store) == {}


def test_the_age_of_an_object_begins_anew_with_each_write(store: Store) -> None:
    store.write("key", b"")
    assert store.age("key") <= 2  # S3 tells whole seconds
    time.sleep(3)
    assert 2 <= store.age("key") <= 10
    store.write("key", b"")
    assert store.age("key") <= 2
    with pytest.raises(NotFound):
        store.age("none")
    assert list(contents(store)) == ["key"]


def test_create_never_overwrites(store: Store) -> None:
    store.create("key", b"first")
    with pytest.raises(AlreadyExists, match="key"):
        store.create("key", b"second")
    assert contents(store) == {"key": b"first"}


def test_a_race_of_creates_has_one_winner(store: Store) -> None:
    def attempt(number: int) -> int | None:
        try:
            store.create("raced", b"writer %d" % number)
        except AlreadyExists:
            return None
        return number

    with ThreadPoolExecutor(THREADS) as pool:
        winners = [number for number in pool.map(attempt, range(THREADS)) if number is not None]
    assert len(winners) == 1
    assert contents(store) == {"raced": b"writer %d" % winners[0]}


def test_replace_needs_the_version_that_was_read(store: Store) -> None:
    store.create("key", b"one")
    stale = store.read_versioned("key")
    version = store.replace("key", b"two", stale.version)
    with pytest.raises(Conflict, match="key"):
        store.replace("key", b"three", stale.version)
    assert store.read_versioned("key").data == b"two"
    assert store.read_versioned("key").version == version
    store.replace("key", b"four", version)
    assert store.read("key") == b"four"


def test_replace_of_a_deleted_object_is_a_conflict(store: Store) -> None:
    store.create("key", b"one")
    version = store.read_versioned("key").version
    store.delete("key")
    with pytest.raises(Conflict):
        store.replace("key", b"two", version)
    assert contents(store) == {}


def test_racing_replaces_lose_no_update(store: Store) -> None:
    store.create("counter", b"0")

    def increment(_: int) -> None:
        while True:
            current = store.read_versioned("counter")
            try:
                store.replace("counter", b"%d" % (int(current.data) + 1), current.version)
            except Conflict:
                continue
            return

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(increment, range(THREADS * 3)))
    assert contents(store) == {"counter": b"24"}


def test_readers_see_whole_objects_while_they_are_overwritten(store: Store) -> None:
    versions = [bytes([number]) * 200_000 for number in range(4)]
    store.write("key", versions[0])

    def write(number: int) -> None:
        store.write("key", versions[number % len(versions)])

    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(write, number) for number in range(20)]
        while not all(job.done() for job in writes):
            assert store.read("key") in versions


@pytest.mark.parametrize("size", [0, 1, (8 << 20) - 1, (20 << 20) + 7])
def test_files_of_any_size_keep_their_hash(store: Store, tmp_path: Path, size: int) -> None:
    source, copy = tmp_path / "source", tmp_path / "deep" / "copy"
    source.write_bytes(random.Random(size).randbytes(size))
    store.write_file("shards/big.tar", source)
    store.fetch("shards/big.tar", copy)
    assert sha256_file(copy) == sha256_file(source)
    assert store.size("shards/big.tar") == size
    assert list(copy.parent.iterdir()) == [copy]
    if size:
        assert store.read_range("shards/big.tar", size - 1, 1) == source.read_bytes()[-1:]


def test_an_absent_source_file_is_named_and_writes_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(MarlinError, match=r"gone\.tar: no such file"):
        store.write_file("key", tmp_path / "gone.tar")
    assert contents(store) == {}


def test_local_path_is_a_real_file_or_none(store: Store) -> None:
    store.write("key", b"data")
    path = store.local_path("key")
    if store.url.startswith("s3://"):
        assert path is None
    else:
        assert path is not None
        assert path.read_bytes() == b"data"
        with pytest.raises(NotFound):
            store.local_path("absent")


def test_check_passes_and_leaves_nothing(store: Store) -> None:
    store.check()
    assert store.supports_conditional()
    assert contents(store) == {}


def test_a_store_travels_to_another_process(store: Store) -> None:
    store.write("key", b"data")
    travelled = pickle.loads(pickle.dumps(store))  # noqa: S301 - our own bytes
    assert travelled.url == store.url
    assert travelled.read("key") == b"data"


def test_the_version_follows_the_content(store: Store) -> None:
    versions = []
    for data in (b"one", b"two", hashlib.sha256(b"three").digest()):
        store.write("key", data)
        versions.append(store.read_versioned("key").version)
    assert len(set(versions)) == 3


def test_opening_creates_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "absent"))
    assert list(store.list()) == []
    assert not (tmp_path / "absent").exists()
