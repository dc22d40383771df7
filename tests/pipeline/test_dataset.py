"""Reading a dataset's index: what comes out, and what is refused."""

import copy
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic import DrawnTrack, write_dataset

from pipeline.dataset import Dataset, load_dataset
from pipeline.errors import MarlinError
from pipeline.storage import Store, open_store

TRACKS = [DrawnTrack("a.mp4", train=(32, 40), val=(32,)), DrawnTrack("b.mp4", train=(33,), val=())]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(str(tmp_path / "data"))
    write_dataset(opened, TRACKS, label_maps=False)
    return opened


def rewrite(store: Store, change: dict[str, object]) -> None:
    """Change fields of the first unit's first sample, with a dataset.json that commits to it."""

    def revise(unit: dict[str, Any]) -> None:
        unit["samples"][0].update(change)
        unit["samples"][0] = {name: value for name, value in unit["samples"][0].items() if value is not None}

    rewrite_unit(store, revise)


def rewrite_unit(store: Store, change: Callable[[dict[str, Any]], None], **fields: object) -> None:
    """Change the first unit, with a dataset.json that commits to it and has these fields."""
    info = json.loads(store.read("dataset.json")) | fields
    unit = json.loads(store.read(info["units"][0]["name"]))
    change(unit)
    data = json.dumps(unit).encode()
    store.write(info["units"][0]["name"], data)
    info["units"][0] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    store.write("dataset.json", json.dumps(info).encode())


def test_samples_come_in_order_with_their_shards(store: Store):
    dataset = load_dataset(store)
    keys = ["000000-t00-000000", "000000-t00-000032", "000000-t00-000072", "000001-t00-000000"]
    assert [sample.key for sample in dataset.samples] == keys
    assert [sample.frames for sample in dataset.samples] == [32, 40, 32, 33]
    assert [sample.key for sample in dataset.of_split("val")] == keys[2:3]
    assert [sample.unit for sample in dataset.samples] == ["000000"] * 3 + ["000001"]
    assert {sample.shard for sample in dataset.samples} == set(dataset.shards)
    assert dataset.identity == hashlib.sha256(store.read("dataset.json")).hexdigest()
    assert dataset.info["size"] == 32
    assert [unit["unit"] for unit in dataset.units] == ["000000", "000001"]


def test_sources_tell_who_is_seen_and_what_is_known(store: Store):
    def label(unit: dict[str, Any]) -> None:
        unit["sources"][0] |= {"labels": {"smile": [1]}}

    rewrite_unit(store, label, labels={"smile": {"type": "binary", "names": ["smiles"]}})
    dataset = load_dataset(store)
    assert dataset.labels == {"smile": {"type": "binary", "names": ["smiles"]}}
    record = dataset.sources[dataset.samples[0].source]
    assert (record.name, record.identity, record.labels) == ("a.mp4", "drawn-0", {"smile": [1]})
    assert dict(dataset.sources["b.mp4"].labels) == {}


def test_a_revised_unit_keeps_its_name(store: Store):
    info = json.loads(store.read("dataset.json"))
    store.write("units/000000.r1.json", store.read("units/000000.json"))
    store.delete("units/000000.json")
    info["units"][0]["name"] = "units/000000.r1.json"
    store.write("dataset.json", json.dumps(info).encode())
    assert {sample.unit for sample in load_dataset(store).samples} == {"000000", "000001"}


def test_excluded_samples_are_left_out(store: Store):
    data = json.dumps(
        {"schema": 2, "excluded": [{"key": "000000-t00-000032", "reason": "r", "kept": "000000-t00-000000"}]}
    ).encode()
    entry = {"name": "exclusions/x.json", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    info = json.loads(store.read("dataset.json")) | {"exclusions": entry}
    store.write("dataset.json", json.dumps(info).encode())
    with pytest.raises(MarlinError, match=r"exclusions/x\.json"):
        load_dataset(store)
    store.write("exclusions/x.json", data)
    dataset = load_dataset(store)
    assert "000000-t00-000032" not in {sample.key for sample in dataset.samples}
    assert (len(dataset.samples), dataset.excluded) == (3, 1)
    store.write("exclusions/x.json", data + b" ")
    with pytest.raises(MarlinError, match="sha256 differs"):
        load_dataset(store)


def test_parts_are_a_mapping(store: Store):
    parts = load_dataset(store).samples[0].parts
    assert copy.deepcopy(parts) == parts == dict(parts)
    assert "999.jpg" not in parts
    with pytest.raises(KeyError):
        parts["999.jpg"]


def test_parts_are_the_bytes_of_the_tar(store: Store):
    dataset: Dataset = load_dataset(store)
    for sample in dataset.samples:
        with tarfile.open(fileobj=io.BytesIO(store.read(sample.shard))) as tar:
            for part, (offset, length) in sample.parts.items():
                member = tar.extractfile(f"{sample.key}.{part}")
                assert member is not None
                assert store.read_range(sample.shard, offset, length) == member.read()


def test_an_unfinished_dataset_is_named_with_the_fix(tmp_path: Path):
    with pytest.raises(MarlinError, match=r"nothing holds no finished dataset: run `marlin preprocess`"):
        load_dataset(open_store(str(tmp_path / "nothing")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "dataset.json is damaged"),
        (b"[]", "dataset.json is damaged"),
        (b'{"schema": 1}', "has schema 1, this version reads 2"),
        (b'{"schema": 2}', "has no list of units"),
        (b'{"schema": 2, "units": [{"name": "units/x.json"}]}', "damaged manifest entry"),
    ],
)
def test_a_damaged_index_is_refused(store: Store, data: bytes, message: str):
    store.write("dataset.json", data)
    with pytest.raises(MarlinError, match=message):
        load_dataset(store)


def test_a_unit_that_was_changed_is_refused(store: Store):
    store.write("units/000001.json", store.read("units/000001.json") + b"\n")
    with pytest.raises(MarlinError, match=r"units/000001\.json is not the file that dataset\.json lists"):
        load_dataset(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": None}, r"units/000000\.json: a sample or source is incomplete \('source'\)"),
        ({"shard": 3}, r"units/000000\.json"),
        ({"parts": {"000.jpg": 5}}, r"units/000000\.json"),
        ({"key": "000001-t00-000000"}, "keys are not unique"),
    ],
)
def test_a_sample_that_makes_no_sense_is_refused(store: Store, change: dict[str, object], message: str):
    rewrite(store, change)
    with pytest.raises(MarlinError, match=message):
        load_dataset(store)
