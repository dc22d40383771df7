"""Takes sources out of a dataset for good: a person withdraws consent.

The removal is first recorded in plan.json. Each unit that held such a source then gets new shards without its samples
and a manifest of the next revision; dataset.json is put anew; what the old manifests named is deleted last. Stopped
anywhere, `settle` completes it.
"""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.dataset import file_entries, parse, read_exclusions
from pipeline.errors import MarlinError, UsageError
from pipeline.storage import AlreadyExists, Conflict, Store
from pipeline.storage.manifest import FileEntry
from pipeline.text import nearest
from preprocess.dataset.finish import DATASET, manifest_keys, read_dataset, removed_entries, rewrite_dataset
from preprocess.dataset.manifests import (
    manifest_bytes,
    manifest_key,
    newest,
    read_manifest,
    read_manifests,
    revision_of,
    revisions,
    unit_of,
)
from preprocess.dataset.plan import Plan, Removal, read_plan, write_plan
from preprocess.dataset.shards import ShardWriter, checked_shard, shard_entries

_ATTEMPTS = 3


@dataclass(frozen=True)
class Effect:
    """What a removal takes out.

    Attributes:
        sources: names of the sources, sorted.
        earlier: those asked for that had been taken out before.
        units: units that are written anew.
        samples, frames: how many go.
        copies: other sources of the same video file, by its sha256, or with near-duplicates of their samples.
    """

    sources: tuple[str, ...]
    earlier: tuple[str, ...]
    units: int
    samples: int
    frames: int
    copies: tuple[str, ...]


def remove_sources(
    store: Store, names: Sequence[str], identities: Sequence[str], reason: str, *, dry_run: bool = False
) -> Effect:
    """Takes sources out, by name or by who is seen in them; safe to repeat.

    Args:
        store: the dataset, finished or not.
        names, identities: which.
        reason: recorded with each of them.
        dry_run: only say what would go.

    Raises:
        UsageError: nothing is named, or something that the dataset does not hold.
        MarlinError: there is no dataset, or something that is needed to copy the rest is damaged.
    """
    if not names and not identities:
        raise UsageError("name what to take out: --source NAME or --identity ID")
    if not reason.strip():
        raise UsageError("--reason is empty: say why, it is recorded in the dataset")
    for _ in range(_ATTEMPTS):
        stored = read_plan(store)
        if stored.version is None:
            raise MarlinError(f"{store.url} holds no dataset: check storage.root and corpus.name, or set data.dataset")
        removals, earlier = _choose(stored.plan, names, identities, reason.strip())
        effect = _effect(store, removals, earlier)
        if dry_run:
            return effect
        try:
            if removals:
                write_plan(store, stored.plan.without(removals), stored.settings, stored.version)
        except (AlreadyExists, Conflict):
            continue  # another run extended the plan meanwhile: look again
        settle(store)
        return effect
    raise MarlinError(f"{store.url}/plan.json keeps changing: another run is extending it; try again later")


def settle(store: Store) -> None:
    """Completes whatever removals plan.json records; does nothing where all of them are complete.

    Raises:
        MarlinError: a manifest or shard that has to be copied is damaged.
    """
    plan = read_plan(store).plan
    if not plan.removed:
        return
    take_out(store, plan)
    before = read_dataset(store)
    if before is not None:
        where = f"{store.url}/{DATASET}"
        info = parse(before.data, where)
        listed = [entry.name for entry in file_entries(info, "units", where)]
        counting = manifest_keys(store)
        current = [counting.get(unit_of(key), key) for key in listed]
        if current != listed or info.get("removed") != removed_entries(plan):
            rewrite_dataset(store, plan, [unit_of(key) for key in listed], before)
    sweep(store, plan)


def take_out(store: Store, plan: Plan) -> None:
    """Gives every unit that still holds removed sources a new revision without them; deletes nothing."""
    names = {gone.source for gone in plan.removed}
    for unit in _affected(plan):
        while not _revise(store, unit, names):
            pass  # another run was faster: look at what it made


def sweep(store: Store, plan: Plan) -> None:
    """Deletes what dataset.json no longer names of the units that held removed sources: shards first, then manifests,
    so that what is left after a stop is found again."""
    for unit in _affected(plan):
        keys = revisions(store, unit)
        kept = {entry["name"] for entry in read_manifest(store, keys[-1])["shards"]} if keys else set()
        for item in store.list(f"shards/{unit}-"):
            if item.key not in kept:
                store.delete(item.key)
        for key in keys[:-1]:
            store.delete(key)


def _affected(plan: Plan) -> list[str]:
    return sorted({unit for gone in plan.removed for unit in gone.units})


def _choose(
    plan: Plan, names: Sequence[str], identities: Sequence[str], reason: str
) -> tuple[tuple[Removal, ...], tuple[str, ...]]:
    """The removals to record, and the names among those asked for that are removed already."""
    chosen: dict[str, Removal] = {}
    known: dict[str, set[str]] = {"source": set(), "identity": set()}
    for unit in plan.units:
        for piece in unit.pieces:
            source = piece.source
            known["source"].add(source.name)
            known["identity"] |= source.everyone
            asked = sorted(source.everyone.intersection(identities))
            if source.name in names or asked:
                identity = asked[0] if asked else ""
                removal = chosen.setdefault(source.name, Removal(source.name, reason, identity))
                chosen[source.name] = replace(removal, units=tuple(dict.fromkeys([*removal.units, unit.name])))
    earlier = [gone for gone in plan.removed if gone.source in names or gone.identity in identities]
    _check_known("source", names, known["source"], {gone.source for gone in earlier})
    _check_known("identity", identities, known["identity"], {gone.identity for gone in earlier})
    return tuple(chosen.values()), tuple(gone.source for gone in earlier)


def _check_known(what: str, asked: Sequence[str], known: Collection[str], earlier: Collection[str]) -> None:
    for name in asked:
        if name in known or name in earlier:
            continue
        raise UsageError(f"the dataset holds no {what} {name!r}{nearest(name, known)}")


def _effect(store: Store, removals: Sequence[Removal], earlier: tuple[str, ...]) -> Effect:
    names = {gone.source for gone in removals}
    units, samples, frames = 0, 0, 0
    alike = _near_duplicates(store)
    same: dict[str, set[str]] = {}
    for _, manifest in read_manifests(store, list(newest(item.key for item in store.list("units/")).values())):
        units += _holds(manifest, names)
        going = [sample for sample in manifest["samples"] if sample["source"] in names]
        samples += len(going)
        frames += sum(sample["frames"] for sample in going)
        for entry in manifest["sources"]:
            same.setdefault(entry["sha256"], set()).add(entry["source"])
        for sample in manifest["samples"]:
            if sample["key"] in alike:
                same.setdefault(alike[sample["key"]], set()).add(sample["source"])
    copies = {name for held in same.values() if held & names for name in held - names}
    return Effect(tuple(sorted(names)), earlier, units, samples, frames, tuple(sorted(copies)))


def _near_duplicates(store: Store) -> dict[str, str]:
    """Keys of samples that show the same recording, each with the key of the one that is used."""
    stored = read_dataset(store)
    if stored is None:
        return {}
    excluded = read_exclusions(store, parse(stored.data, f"{store.url}/{DATASET}"))
    return {entry[name]: entry["kept"] for entry in excluded for name in ("key", "kept")}


def _holds(manifest: Mapping[str, Any], names: Collection[str]) -> bool:
    return any(entry["source"] in names for entry in (*manifest["sources"], *manifest["quarantined"]))


def _revise(store: Store, unit: str, names: Collection[str]) -> bool:
    """Commits the unit without these sources, if it holds any; False when another run put that revision meanwhile."""
    keys = revisions(store, unit)
    if not keys:
        return True
    manifest = read_manifest(store, keys[-1])
    if not _holds(manifest, names):
        return True
    kept = {
        field: [entry for entry in manifest[field] if entry["source"] not in names]
        for field in ("samples", "sources", "quarantined")
    }
    with tempfile.TemporaryDirectory(prefix="marlin-remove-") as folder:
        copied = _copy_samples(store, manifest, kept["samples"], Path(folder))
        revised = {**manifest, **kept, **copied}
        try:
            store.create(manifest_key(unit, revision_of(keys[-1]) + 1), manifest_bytes(revised))
        except AlreadyExists:
            return False
    return True


def _copy_samples(
    store: Store, manifest: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], folder: Path
) -> dict[str, Any]:
    """Puts shards that hold these samples alone, part for part as they are; returns the manifest's fields for them."""
    if len(samples) == len(manifest["samples"]):
        return {}
    writer, copied = ShardWriter(folder), []
    for number, shard in enumerate(manifest["shards"]):
        held = [sample for sample in samples if sample["shard"] == number]
        if not held:
            continue
        with checked_shard(store, FileEntry.from_dict(shard), folder / "old").open("rb") as file:
            for sample in held:
                parts = {}
                for name, (offset, length) in sorted(sample["parts"].items(), key=lambda part: part[1][0]):
                    file.seek(offset)
                    parts[name] = file.read(length)
                to, places = writer.add(sample["key"], parts)
                copied.append({**sample, "shard": to, "parts": {name: list(place) for name, place in places.items()}})
    paths = writer.close()
    entries = shard_entries(manifest["unit"], paths)
    for entry, path in zip(entries, paths, strict=True):
        store.write_file(entry.name, path)
    return {"shards": [entry.to_dict() for entry in entries], "samples": copied}
