"""Damage done to drawn datasets, each kind of it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drawn_dataset import Drawn

from pipeline.storage import Store
from pipeline.storage.manifest import to_json
from preprocess.dataset.shards import ShardWriter

Change = Callable[[dict[str, bytes]], None]
SCHEMA = {"smile": {"type": "binary", "names": ["open", "shut"]}, "mood": {"type": "real"}}
UNITS = [
    [Drawn("a.mp4", face=1, labels={"smile": [0, 1], "mood": 0.5}), Drawn("b.mp4", face=2)],
    [Drawn("c.mp4", face=3, split="val"), Drawn("bad.mp4", bad="no-face")],
]


def commit_again(store: Store, change: Callable[[dict[str, Any]], None], unit: str = "000000") -> None:
    """Changes a unit's manifest, with a dataset.json that commits to it."""
    key = f"units/{unit}.json"
    manifest, info = json.loads(store.read(key)), json.loads(store.read("dataset.json"))
    change(manifest)
    data = to_json(manifest, compact=True)
    store.write(key, data)
    [entry] = [entry for entry in info["units"] if entry["name"] == key]
    entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    store.write("dataset.json", to_json(info))


def rewrite_shard(store: Store, folder: Path, change: Change) -> None:
    """Changes parts of the first sample of the first unit and commits to the result."""

    def revise(manifest: dict[str, Any]) -> None:
        old = store.read(manifest["shards"][0]["name"])
        folder.mkdir()
        writer = ShardWriter(folder)
        for number, sample in enumerate(manifest["samples"]):
            ordered = sorted(sample["parts"].items(), key=lambda item: item[1])
            parts = {name: old[start : start + length] for name, (start, length) in ordered}
            if not number:
                change(parts)
            _, places = writer.add(sample["key"], parts)
            sample["parts"] = {name: list(place) for name, place in places.items()}
        [path] = writer.close()
        data = path.read_bytes()
        manifest["shards"][0] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        store.write(manifest["shards"][0]["name"], data)

    commit_again(store, revise)


def set_record(**changes: Any) -> Change:
    def change(parts: dict[str, bytes]) -> None:
        record = json.loads(parts["json"]) | changes
        parts["json"] = to_json({name: value for name, value in record.items() if value is not ...})

    return change


def set_part(name: str, data: Callable[[bytes], bytes] | bytes | None) -> Change:
    def change(parts: dict[str, bytes]) -> None:
        if data is None:
            del parts[name]
        else:
            parts[name] = data if isinstance(data, bytes) else data(parts[name])

    return change


def delete_shard(store: Store) -> None:
    store.delete(next(store.list("shards/000000-")).key)


def flip_bit(store: Store) -> None:
    key = next(store.list("shards/000000-")).key
    data = bytearray(store.read(key))
    data[700] ^= 1
    store.write(key, bytes(data))


def hide_member(store: Store) -> None:
    def drop(manifest: dict[str, Any]) -> None:
        manifest["samples"].pop(1)

    commit_again(store, drop)


def shift_part(store: Store) -> None:
    def shift(manifest: dict[str, Any]) -> None:
        parts = manifest["samples"][0]["parts"]
        parts["000.jpg"], parts["001.jpg"] = parts["001.jpg"], parts["000.jpg"]

    commit_again(store, shift)


def repeat_key(store: Store) -> None:
    def repeat(manifest: dict[str, Any]) -> None:
        manifest["samples"][0]["key"] = "000000-s000-t00-000000"

    commit_again(store, repeat, "000001")


def forget_source(store: Store) -> None:
    commit_again(store, lambda manifest: manifest["sources"].pop())


def change_entry(store: Store) -> None:
    commit_again(store, lambda manifest: manifest["samples"][0].update(frames=-1))


def change_info(**changes: Any) -> Callable[[Store], None]:
    def change(store: Store) -> None:
        store.write("dataset.json", to_json(json.loads(store.read("dataset.json")) | changes))

    return change


def change_counts(**changes: int) -> Callable[[Store], None]:
    def change(store: Store) -> None:
        change_info(counts=json.loads(store.read("dataset.json"))["counts"] | changes)(store)

    return change


def change_plan(old: bytes, new: bytes) -> Callable[[Store], None]:
    def change(store: Store) -> None:
        data = store.read("plan.json")
        assert old in data
        store.write("plan.json", data.replace(old, new))

    return change


def forge_exclusion(store: Store) -> None:
    data = to_json({"schema": 2, "excluded": [{"key": "nobody", "reason": "near-duplicate", "kept": "x"}]})
    store.write("exclusions/x.json", data)
    entry = {"name": "exclusions/x.json", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    change_info(exclusions=entry)(store)
