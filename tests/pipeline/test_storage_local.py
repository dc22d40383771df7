"""The local backend: addresses, full disks, killed writers, and any key and bytes."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import MarlinError, UsageError
from pipeline.storage import InvalidKey, open_store
from pipeline.storage.base import check_key
from pipeline.storage.local import LocalStore

REPOSITORY = Path(__file__).parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@given(key=st.text(max_size=80), data=st.binary(max_size=200))
@settings(max_examples=150)
def test_a_key_is_refused_or_stays_inside_and_roundtrips(key: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"{folder}/inside")
        try:
            store.write(key, data)
        except InvalidKey:
            assert list(Path(folder).iterdir()) == []
            return
        assert store.read(key) == data
        assert [info.key for info in store.list()] == [key]
        assert list(Path(folder).iterdir()) == [Path(folder, "inside")]


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b c", ".tmp-1", "ü"]), min_size=1, max_size=5))
def test_a_key_is_valid_when_all_its_segments_are(segments: list[str]) -> None:
    key = "/".join(segments)
    if set(segments) & {"..", ".", "", ".tmp-1"}:
        with pytest.raises(InvalidKey):
            check_key(key)
    else:
        assert check_key(key) == key


@pytest.mark.parametrize("key", ["x" * 256, "ü" * 128, "/".join(["x" * 200] * 6), "lone \ud800 surrogate"])
def test_keys_that_some_backend_cannot_hold_are_refused(key: str) -> None:
    with pytest.raises(InvalidKey):
        check_key(key)


def test_urls_name_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "with space"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    urls = [str(folder), f"{folder}/", "with space", "~/with space", f"file://{tmp_path}/with%20space"]
    assert {open_store(url).url for url in urls} == {str(folder)}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "empty"),
        ("gs://bucket/x", "unknown scheme"),
        ("s3://", "no bucket"),
        ("s3:///x", "no bucket"),
        ("file://host/x", "file:///path"),
        ("file://", "file:///path"),
    ],
)
def test_a_wrong_url_is_wrong_usage(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        open_store(url)


def test_opening_a_folder_does_not_import_boto3() -> None:
    code = "import sys; from pipeline.storage import open_store; open_store('x'); sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


@pytest.mark.parametrize("operation", ["write", "create", "replace", "write_file"])
def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path, operation: str) -> None:
    """The process may write no file beyond 100 kB: the kernel refuses in the middle, as a full disk does."""
    store = LocalStore(tmp_path / "store")
    store.write("old", b"old")
    (tmp_path / "source").write_bytes(bytes(300_000))
    call = {
        "write": "store.write('old', bytes(300_000))",
        "create": "store.create('new', bytes(300_000))",
        "replace": "store.replace('old', bytes(300_000), store.read_versioned('old').version)",
        "write_file": f"store.write_file('old', Path({str(tmp_path / 'source')!r}))",
    }[operation]
    code = f"""
import resource, signal, sys
from pathlib import Path
from pipeline.errors import MarlinError
from pipeline.storage import open_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store = open_store({store.url!r})
try:
    {call}
except MarlinError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "file-size limit" in result.stdout, result.stderr
    assert store.url in result.stdout
    assert {info.key: store.read(info.key) for info in store.list()} == {"old": b"old"}
    assert set(names(store.root)) <= {"old", ".tmp-lock"}


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permission"),
        (errno.EIO, "Input/output"),
    ],
)
def test_what_the_disk_refuses_is_one_line_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    store = open_store(str(tmp_path))

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    for operation in (store.write, store.create):
        with pytest.raises(MarlinError, match=told) as caught:
            operation("sub/key", b"data")
        assert f"{tmp_path}/sub/key" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(MarlinError, match=told):
        store.check()
    assert names(tmp_path) == []


def test_a_file_where_a_folder_is_needed_is_told(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("a", b"file")
    store.write("folder/b", b"file")
    with pytest.raises(MarlinError, match="is a file, not a folder"):
        store.write("a/b", b"data")
    with pytest.raises(MarlinError, match="is a folder where a file is needed"):
        store.write("folder", b"data")
    assert names(tmp_path) == ["a", "b"]


def test_a_killed_writer_leaves_nothing_visible(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pipeline.storage import open_store
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
open_store({str(tmp_path)!r}).write("shards/key", bytes(100_000))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == -9
    store = open_store(str(tmp_path))
    assert len(names(tmp_path)) == 1, "the writer died with its temporary file written"
    assert list(store.list()) == []
    store.create("shards/key", b"second try")
    assert [info.key for info in store.list()] == ["shards/key"]


def test_processes_racing_to_replace_lose_no_update(tmp_path: Path) -> None:
    open_store(str(tmp_path)).create("counter", b"0")
    code = f"""
from pipeline.storage import Conflict, open_store
store = open_store({str(tmp_path)!r})
for _ in range(50):
    while True:
        current = store.read_versioned("counter")
        try:
            store.replace("counter", b"%d" % (int(current.data) + 1), current.version)
            break
        except Conflict:
            pass
"""
    racers = [subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY) for _ in range(3)]
    assert [racer.wait() for racer in racers] == [0, 0, 0]
    assert open_store(str(tmp_path)).read("counter") == b"150"


def test_unfinished_files_are_removed_below_a_prefix(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.remove_unfinished("a/")
    for key in ("a/b/kept", "other/kept"):
        store.write(key, b"data")
    for folder in ("a", "a/b", "other"):
        (tmp_path / folder / ".tmp-0123").write_bytes(b"half")
    (tmp_path / "a" / ".tmp-lock").write_bytes(b"")
    store.remove_unfinished("a/")
    left = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(left) == ["a/.tmp-lock", "a/b/kept", "other/.tmp-0123", "other/kept"]
