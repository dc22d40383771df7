"""Tar shards: bytes, index, and plain webdataset as a reader."""

from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from preprocess.dataset.shards import ShardWriter, shard_entries

SAMPLES = {
    "000000-t00-000000": {"000.jpg": b"a" * 700, "regions.npy": b"b" * 512, "json": b"{}"},
    "000000-t00-000064": {"000.jpg": b"", "regions.npy": b"c", "json": b"[1]"},
}


def _write(folder: Path, limit: int = 1 << 20) -> tuple[list[Path], dict[str, tuple[int, dict[str, tuple[int, int]]]]]:
    folder.mkdir()
    writer = ShardWriter(folder, shard_bytes=limit)
    index = {key: writer.add(key, parts) for key, parts in SAMPLES.items()}
    return writer.close(), index


@pytest.mark.parametrize(("limit", "shards"), [(1 << 20, 1), (1, 2)])
def test_the_index_points_at_the_payloads(tmp_path: Path, limit: int, shards: int) -> None:
    paths, index = _write(tmp_path / "a", limit)
    assert len(paths) == shards
    for key, (shard, places) in index.items():
        data = paths[shard].read_bytes()
        read = {name: data[offset : offset + length] for name, (offset, length) in places.items()}
        assert read == SAMPLES[key]


@given(st.lists(st.binary(max_size=1600), min_size=1, max_size=5))
def test_offsets_hold_for_any_sizes(tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]) -> None:
    writer = ShardWriter(tmp_path_factory.mktemp("shards"))
    places = [writer.add(f"k{number}", {"bin": payload})[1]["bin"] for number, payload in enumerate(payloads)]
    data = writer.close()[0].read_bytes()
    assert [data[offset : offset + length] for offset, length in places] == payloads


def test_the_same_samples_give_the_same_bytes_and_names(tmp_path: Path) -> None:
    first, second = _write(tmp_path / "a")[0], _write(tmp_path / "b")[0]
    assert first[0].read_bytes() == second[0].read_bytes()
    assert shard_entries("000007", first) == shard_entries("000007", second)
    assert shard_entries("000007", first)[0].name.startswith("shards/000007-")


def test_plain_webdataset_reads_them(tmp_path: Path) -> None:
    paths, _ = _write(tmp_path / "a")
    read = list(webdataset.WebDataset(str(paths[0]), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == list(SAMPLES)
    for sample in read:
        assert {name: sample[name] for name in SAMPLES[sample["__key__"]]} == SAMPLES[sample["__key__"]]


def test_no_samples_make_no_shard(tmp_path: Path) -> None:
    assert ShardWriter(tmp_path).close() == []
