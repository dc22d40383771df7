"""The folder of shard copies: whole or not there, bounded, shared by processes that may die at any moment."""

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import MarlinError
from pipeline.storage.atomic import locked
from pipeline.storage.manifest import FileEntry
from train.data.cache.folder import NodeCache, NoRoom, WrongShard

REPOSITORY = Path(__file__).parents[2]
SIZE = 5000
URL = "s3://bucket/shard.tar"


def content(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE)


def entry(number: int) -> FileEntry:
    data = content(number)
    return FileEntry(f"shards/{number}.tar", len(data), hashlib.sha256(data).hexdigest())


def pieces(number: int) -> Iterator[bytes]:
    data = content(number)
    return (data[start : start + 1024] for start in range(0, len(data), 1024))


def add(cache: NodeCache, number: int) -> bool:
    return cache.add(entry(number), pieces(number), URL)


def copies(folder: Path) -> set[int]:
    """Which shards have a copy; each must be whole."""
    numbers = {entry(number).sha256: number for number in range(20)}
    found = {numbers[path.stem] for path in folder.glob("*.tar")}
    assert all((folder / f"{entry(number).sha256}.tar").read_bytes() == content(number) for number in found)
    return found


def leavings(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir() if path.suffix in (".part", ".uses"))


def occupied(folder: Path) -> int:
    """Bytes of all copies and of those on their way, at one moment."""
    with locked(folder / "lock"):
        return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".tar", ".part"))


def age(folder: Path, number: int, seconds: int) -> None:
    path = folder / f"{entry(number).sha256}.tar"
    os.utime(path, (seconds, seconds))


def test_a_copy_is_made_once_and_found_again(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, None)
    assert cache.find(entry(1)) is None
    assert add(cache, 1)
    assert not add(cache, 1)
    found = cache.find(entry(1))
    assert found is not None
    assert found.read_bytes() == content(1)
    cache.close()
    assert leavings(tmp_path) == []


def test_threads_make_one_copy(tmp_path: Path) -> None:
    begun, cache = threading.Barrier(4), NodeCache(tmp_path, None)
    taken = []

    def slow() -> Iterator[bytes]:
        taken.append(1)
        yield from pieces(1)

    def call() -> bool:
        begun.wait()
        return cache.add(entry(1), slow(), URL)

    with ThreadPoolExecutor(4) as pool:
        made = [future.result() for future in [pool.submit(call) for _ in range(4)]]
    assert sum(made) == len(taken) == 1
    assert copies(tmp_path) == {1}


def test_while_a_copy_is_on_its_way_others_do_not_begin_it(tmp_path: Path) -> None:
    one, other = NodeCache(tmp_path, None), NodeCache(tmp_path, None)

    def meanwhile() -> Iterator[bytes]:
        yield content(1)[:10]
        assert not add(other, 1)
        assert other.find(entry(1)) is None
        assert occupied(tmp_path) == SIZE
        yield content(1)[10:]

    assert one.add(entry(1), meanwhile(), URL)
    assert other.find(entry(1)) is not None


@pytest.mark.parametrize("data", [content(1)[:-1], content(1) + b"x", content(2), b""])
def test_wrong_bytes_are_refused_and_not_kept(tmp_path: Path, data: bytes) -> None:
    cache = NodeCache(tmp_path, None)
    with pytest.raises(WrongShard, match=r"shard\.tar is not the file that the dataset lists"):
        cache.add(entry(1), [data], URL)
    assert copies(tmp_path) == set()
    assert leavings(tmp_path) == [".uses"]
    assert add(cache, 1)


def test_a_copy_of_another_size_is_none(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, None)
    (tmp_path / f"{entry(1).sha256}.tar").write_bytes(b"short")
    assert cache.find(entry(1)) is None
    assert add(cache, 1)
    assert copies(tmp_path) == {1}


def test_a_changed_copy_can_be_dropped(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, None)
    add(cache, 1)
    assert not cache.drop_if_damaged(entry(1))
    (tmp_path / f"{entry(1).sha256}.tar").write_bytes(content(2))
    assert cache.drop_if_damaged(entry(1))
    assert not cache.drop_if_damaged(entry(1))
    assert cache.find(entry(1)) is None


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    before = NodeCache(tmp_path, None)
    for number in range(4):
        add(before, number)
    before.close()
    for number, seconds in enumerate((300, 100, 400, 200)):
        age(tmp_path, number, seconds)
    cache = NodeCache(tmp_path, 4 * SIZE)
    assert add(cache, 4)
    assert copies(tmp_path) == {0, 2, 3, 4}
    assert add(cache, 5)
    assert copies(tmp_path) == {0, 2, 4, 5}


def test_what_was_used_last_counts_from_its_last_user(tmp_path: Path) -> None:
    first, second = NodeCache(tmp_path, None), NodeCache(tmp_path, None)
    add(first, 1)
    add(first, 2)
    second.find(entry(1))
    first.close()
    for number in (1, 2):
        age(tmp_path, number, 100 + number)
    second.close()  # touches 1
    cache = NodeCache(tmp_path, 2 * SIZE)
    add(cache, 3)
    assert copies(tmp_path) == {1, 3}


def test_what_a_process_works_with_stays(tmp_path: Path) -> None:
    one, other = NodeCache(tmp_path, 2 * SIZE), NodeCache(tmp_path, 2 * SIZE)
    add(one, 1)
    add(other, 2)
    with pytest.raises(NoRoom, match=r"has no room for 5\.0 kB more: 10\.0 kB are in use.*data\.cache_gb"):
        add(one, 3)
    assert copies(tmp_path) == {1, 2}
    other.close()
    assert add(one, 3)
    assert copies(tmp_path) == {1, 3}


def test_a_smaller_limit_holds_for_what_others_left(tmp_path: Path) -> None:
    large, small = NodeCache(tmp_path, None), NodeCache(tmp_path, 2 * SIZE)
    for number in range(5):
        add(large, number)
    with pytest.raises(NoRoom):
        add(small, 6)
    assert copies(tmp_path) == set(range(5))
    large.close()
    for number in range(5):
        age(tmp_path, number, 100 + number)
    assert add(small, 6)
    assert copies(tmp_path) == {4, 6}


def test_an_open_copy_outlives_its_eviction(tmp_path: Path) -> None:
    first = NodeCache(tmp_path, None)
    add(first, 1)
    found = first.find(entry(1))
    assert found is not None
    with found.open("rb") as file:
        first.close()
        add(NodeCache(tmp_path, SIZE), 2)
        assert copies(tmp_path) == {2}
        assert file.read() == content(1)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["add", "find", "close"]), st.integers(0, 7))))
def test_no_order_of_events_breaks_the_bound(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    limits = [3 * SIZE, 4 * SIZE, 5 * SIZE - 1]
    users = [NodeCache(folder, limit) for limit in limits]
    works_with: list[set[int]] = [set(), set(), set()]
    for user, what, number in events:
        if what == "close":
            users[user].close()
            users[user], works_with[user] = NodeCache(folder, limits[user]), set()
        elif what == "find":
            if users[user].find(entry(number)) is not None:
                works_with[user].add(number)
        else:
            needed = set[int]().union(*works_with) | {number}
            try:
                made = add(users[user], number)
            except NoRoom:
                assert len(needed) * SIZE > limits[user]
            else:
                works_with[user].add(number)
                assert occupied(folder) <= (limits[user] if made else max(limits))
        assert set[int]().union(*works_with) <= copies(folder)
    for user in users:
        user.close()
    assert leavings(folder) == []


DIES = """
    import os, signal, sys
    from pathlib import Path
    from test_node_cache import NodeCache, add, content, entry
    cache = NodeCache(Path(sys.argv[1]), None)
    add(cache, 1)
    def pieces():
        yield content(2)[:100]
        os.kill(os.getpid(), signal.SIGKILL)
    cache.add(entry(2), pieces(), "url")
"""
WORKS = """
    import random, sys
    from pathlib import Path
    from test_node_cache import SIZE, NodeCache, NoRoom, add, content, entry
    dice = random.Random(int(sys.argv[2]))
    made = 0
    for _ in range(40):
        cache = NodeCache(Path(sys.argv[1]), 5 * SIZE)
        for _ in range(3):
            number = dice.randrange(12)
            try:
                made += add(cache, number)
            except NoRoom:
                continue
            found = cache.find(entry(number))
            assert found is None or found.read_bytes() == content(number)
        cache.close()
    print(made)
"""


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests"), str(Path(__file__).parent)])
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths})


def test_a_killed_process_leaves_nothing_wrong(tmp_path: Path) -> None:
    assert start(DIES, tmp_path).wait() == -signal.SIGKILL
    assert leavings(tmp_path) == [".part", ".uses"]
    # What it worked with may go, and what it had begun counts no more.
    cache = NodeCache(tmp_path, SIZE)
    assert add(cache, 2)
    assert copies(tmp_path) == {2}
    assert leavings(tmp_path) == [".uses"]


@pytest.mark.slow
def test_processes_keep_the_bound_together(tmp_path: Path) -> None:
    processes = [start(WORKS, tmp_path, seed) for seed in range(3)]
    most = 0
    while any(process.poll() is None for process in processes):
        most = max(most, occupied(tmp_path))
    assert [process.returncode for process in processes] == [0, 0, 0]
    made = sum(int(process.communicate()[0]) for process in processes)
    assert made > 20  # they evicted each other's
    assert 3 * SIZE <= most <= 5 * SIZE
    assert leavings(tmp_path) == []
    assert len(copies(tmp_path)) <= 5


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = NodeCache(tmp_path, None)

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(MarlinError, match="no space left"):
            add(cache, 1)
    assert copies(tmp_path) == set()
    assert leavings(tmp_path) == [".uses"]
    assert add(cache, 1)


def test_a_part_of_the_disk_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = NodeCache(tmp_path, None)
    add(before, 1)
    before.close()
    cache = NodeCache(tmp_path, None)
    free = 100 * SIZE // 20 + SIZE - 1

    def usage(_: Any) -> Any:
        return shutil._ntuple_diskusage(100 * SIZE, 0, free)  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert cache.capacity() == 2 * SIZE - 1
    assert add(cache, 2)
    assert copies(tmp_path) == {2}
    with pytest.raises(NoRoom, match=r"5\.0 kB of the disk may still be filled"):
        add(cache, 3)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MarlinError, match="file/cache: a part of this path is a file"):
        NodeCache(tmp_path / "file" / "cache", None)
