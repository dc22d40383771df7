"""dataset.json: put last, names every unit manifest that counts. The sha256 of its bytes is the dataset's identity."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.config.schema import Config
from pipeline.dataset import REMAKE, SCHEMA
from pipeline.errors import MarlinError
from pipeline.provenance import versions
from pipeline.storage import AlreadyExists, Conflict, NotFound, Store, Versioned
from pipeline.storage.manifest import FileEntry, to_json
from preprocess.dataset.exclusions import find_exclusions, write_exclusions
from preprocess.dataset.manifests import manifest_bytes, newest, read_manifests
from preprocess.dataset.plan import Plan
from preprocess.faces.duplicates import Entry
from preprocess.models import parser_name
from preprocess.regions import REGIONS

DATASET = "dataset.json"
SPLITS = ("train", "val", "test")


def read_dataset(store: Store) -> Versioned | None:
    """The stored dataset.json, None where there is none yet."""
    try:
        return store.read_versioned(DATASET)
    except NotFound:
        return None


def manifest_keys(store: Store) -> dict[str, str]:
    """Key of the manifest that counts of each finished unit, by the unit's name."""
    return newest(item.key for item in store.list("units/"))


def removed_entries(plan: Plan) -> list[dict[str, str]]:
    """The sources that were taken out, as they stand in dataset.json."""
    return [{"source": gone.source, "identity": gone.identity, "reason": gone.reason} for gone in plan.removed]


def write_dataset(
    cfg: Config,
    store: Store,
    plan: Plan,
    settings: Mapping[str, Any],
    *,
    findings: Iterable[str],
    before: Versioned | None,
) -> bytes:
    """Puts dataset.json with all units of the plan over the version read before; returns its bytes.

    Raises:
        MarlinError: nothing usable in the corpus, more quarantined than allowed, or another run wrote it meanwhile.
    """
    keys = manifest_keys(store)
    tally = _count(store, [keys[unit.name] for unit in plan.units])
    _check_usable(cfg, tally)
    head = {
        "schema": SCHEMA,
        "name": cfg.corpus.name,
        "size": cfg.preprocess.size,
        "patch": cfg.preprocess.patch,
        "frames": cfg.preprocess.clip_frames,
        "regions": list(REGIONS),
        **settings,
        "parser": parser_name(cfg.preprocess),
        "versions": versions(),
        "labels": plan.labels(),
        "findings": _findings(plan, findings, before),
    }
    return _publish(store, head, tally, plan, before)


def rewrite_dataset(store: Store, plan: Plan, units: Sequence[str], before: Versioned) -> bytes:
    """Puts dataset.json anew with the same head, for these units alone; returns its bytes.

    Raises:
        MarlinError: another run wrote it meanwhile, or a unit's manifest is gone.
    """
    keys = manifest_keys(store)
    gone = [unit for unit in units if unit not in keys]
    if gone:
        raise MarlinError(f"{store.url}: the manifest of unit {gone[0]} is gone: {REMAKE}")
    tally = _count(store, [keys[unit] for unit in units])
    return _publish(store, json.loads(before.data), tally, plan, before)


class _Counted(NamedTuple):
    """What is kept of a sample while all are counted; `prints` are its fingerprints, joined to save memory."""

    key: str
    start: int
    frames: int
    split: str
    prints: str

    @property
    def track(self) -> str:
        """Name of its track: keys end in the first frame."""
        return self.key.rpartition("-")[0]

    @property
    def entry(self) -> Entry:
        """As the search for near-duplicates wants it."""
        return Entry(self.key, self.track, self.start, self.prints.split(",") if self.prints else ())


@dataclass
class Tally:
    """Sums over unit manifests."""

    entries: list[FileEntry] = field(default_factory=list)
    samples: list["_Counted"] = field(default_factory=list)
    good: set[str] = field(default_factory=set)
    dropped: Counter[str] = field(default_factory=Counter)
    quarantined: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, key: str, manifest: Mapping[str, Any]) -> None:
        data = manifest_bytes(manifest)  # canonical, so these are the bytes that lie in storage
        self.entries.append(FileEntry(key, len(data), hashlib.sha256(data).hexdigest()))
        for sample in manifest["samples"]:
            prints = ",".join(sample["phash"])
            self.samples.append(_Counted(sample["key"], sample["start"], sample["frames"], sample["split"], prints))
        self.good.update(entry["source"] for entry in manifest["sources"])
        for entry in manifest["sources"]:
            self.dropped.update(entry["dropped"])
        for entry in manifest["quarantined"]:
            self.quarantined.setdefault(entry["source"], entry)

    @property
    def bad(self) -> dict[str, dict[str, Any]]:
        """Quarantined sources; a long video is bad when all its spans are: one without a face is no fault of it."""
        return {name: entry for name, entry in self.quarantined.items() if name not in self.good}

    def content(self, excluded: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """The fields of dataset.json that follow from the units and from what is left out of them."""
        left_out = {entry["key"] for entry in excluded}
        used = [sample for sample in self.samples if sample.key not in left_out]
        bad = self.bad
        return {
            "counts": {
                "sources": len(self.good) + len(bad),
                "quarantined": len(bad),
                "units": len(self.entries),
                "tracks": len({sample.track for sample in used}),
                "samples": len(used),
                "excluded": len(excluded),
                "frames": sum(sample.frames for sample in used),
            },
            "splits": {split: sum(sample.split == split for sample in used) for split in SPLITS},
            "quarantine": by_reason(bad.values()),
            "dropped": dict(self.dropped),
            "units": [entry.to_dict() for entry in self.entries],
        }


def _count(store: Store, keys: Sequence[str]) -> Tally:
    tally = Tally()
    for key, manifest in read_manifests(store, keys):
        tally.add(key, manifest)
    return tally


def _publish(store: Store, head: Mapping[str, Any], tally: Tally, plan: Plan, before: Versioned | None) -> bytes:
    wanted = head["config"].get("near_duplicates", True)
    excluded = find_exclusions(sample.entry for sample in tally.samples) if wanted else []
    exclusions = write_exclusions(store, excluded)
    content = {**head, **tally.content(excluded), "removed": removed_entries(plan), "exclusions": exclusions}
    data = to_json(content)
    try:
        if before is None:
            store.create(DATASET, data)
        elif before.data != data:
            store.replace(DATASET, data, before.version)
    except (AlreadyExists, Conflict) as error:
        if store.read(DATASET) != data:
            raise MarlinError(f"another run wrote {store.url}/{DATASET} meanwhile: run again") from error
    for item in store.list("exclusions/"):
        if exclusions is None or item.key != exclusions["name"]:
            store.delete(item.key)
    return data


def _findings(plan: Plan, findings: Iterable[str], before: Versioned | None) -> list[str]:
    """What does not fit in the corpus; of a dataset made from several, what was found in the others stays."""
    several = len({unit.root.path for unit in plan.units}) > 1
    earlier = json.loads(before.data)["findings"] if before and several else []
    return list(dict.fromkeys([*earlier, *findings]))


def by_reason(entries: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Counts of quarantined sources by their reasons."""
    return dict(sorted(Counter(str(entry["reason"]) for entry in entries).items()))


def _check_usable(cfg: Config, tally: Tally) -> None:
    bad = tally.bad
    total = len(tally.good) + len(bad)
    reasons = ", ".join(f"{reason} {count}" for reason, count in by_reason(bad.values()).items())
    first = next(iter(bad.values()), None)
    example = f", as {first['source']}: {first['detail']}" if first else ""
    if len(bad) > cfg.preprocess.max_failed * total:
        raise MarlinError(
            f"{len(bad)} of {total} sources are quarantined ({reasons}{example}), more than "
            f"preprocess.max_failed={cfg.preprocess.max_failed}: mend the corpus, or raise it"
        )
    if not tally.samples:
        raise MarlinError(f"no samples came out of {total} sources ({reasons}{example}): check corpus.path")
