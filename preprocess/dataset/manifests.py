"""Unit manifests: the commit points of a dataset. The newest revision of a unit's manifest is the one that counts."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pipeline.dataset import SCHEMA
from pipeline.errors import MarlinError
from pipeline.storage import AlreadyExists, Store
from pipeline.storage.manifest import FileEntry, parse_json, to_json
from preprocess.dataset.plan import Piece, Unit
from preprocess.decode.video import Span
from preprocess.quarantine import BadSource

_PARALLEL_READS = 16
_KEY = re.compile(r"units/(?P<unit>\d+)(\.r(?P<revision>\d+))?\.json")


@dataclass
class Content:
    """What goes into a unit's manifest, next to its shards."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    quarantined: list[dict[str, Any]] = field(default_factory=list)


def manifest_key(unit: str, revision: int = 0) -> str:
    """Key of a unit's manifest; revisions above 0 are made when a source is taken out."""
    return f"units/{unit}.r{revision}.json" if revision else f"units/{unit}.json"


def newest(keys: Iterable[str]) -> dict[str, str]:
    """The manifest that counts of each unit, by the unit's name."""
    found = [(unit_of(key), revision_of(key), key) for key in keys if _KEY.fullmatch(key)]
    return {unit: key for unit, _, key in sorted(found)}


def unit_of(key: str) -> str:
    """Name of the unit whose manifest has this key."""
    return key.removeprefix("units/").partition(".")[0]


def revision_of(key: str) -> int:
    """Revision of the manifest that has this key."""
    match = _KEY.fullmatch(key)
    return int(match["revision"] or 0) if match else 0


def revisions(store: Store, unit: str) -> list[str]:
    """Keys of a unit's manifests, the newest last; more than one until a removal is complete."""
    keys = [item.key for item in store.list(f"units/{unit}.") if _KEY.fullmatch(item.key)]
    return sorted(keys, key=revision_of)


def piece_entry(name: str, span: Span | None) -> dict[str, Any]:
    """A source, or a span of it, as it stands in manifests."""
    return {"source": name, "span": list(span) if span else None}


def quarantine_entry(piece: Piece, bad: BadSource) -> dict[str, Any]:
    """A quarantined source as it stands in a unit's manifest."""
    return {**piece_entry(piece.source.name, piece.span), "reason": bad.reason, "detail": bad.detail}


def commit(store: Store, unit: Unit, shards: list[FileEntry], content: Content) -> dict[str, Any]:
    """Puts a unit's manifest if there is none yet; returns the one that is there then.

    Raises:
        MarlinError: storage fails.
    """
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "unit": unit.name,
        "shards": [entry.to_dict() for entry in shards],
        "samples": content.samples,
        "sources": content.sources,
        "quarantined": content.quarantined,
    }
    key = manifest_key(unit.name)
    try:
        store.create(key, manifest_bytes(manifest))
        return manifest
    except AlreadyExists:
        winner = read_manifest(store, key)
        kept = {entry["name"] for entry in winner["shards"]}
        for entry in shards:
            if entry.name not in kept:
                store.delete(entry.name)
        return winner


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """A unit manifest as it lies in storage: in one line, since the index of its samples is most of it."""
    return to_json(manifest, compact=True)


def read_manifests(store: Store, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Unit manifests with their keys, in order; a few at a time, since a large dataset's do not fit in memory.

    Raises:
        MarlinError: as `read_manifest`.
    """
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:  # small objects: latency counts on S3
        for first in range(0, len(keys), _PARALLEL_READS):
            block = keys[first : first + _PARALLEL_READS]
            yield from zip(block, pool.map(lambda key: read_manifest(store, key), block), strict=True)


def read_manifest(store: Store, key: str) -> dict[str, Any]:
    """A committed unit manifest.

    Raises:
        NotFound: the unit is not done.
        MarlinError: it is damaged, or of another schema version.
    """
    manifest: dict[str, Any] = parse_json(store.read(key), f"{store.url}/{key}")
    if manifest.get("schema") != SCHEMA:
        raise MarlinError(f"{store.url}/{key} has schema {manifest.get('schema')}, not {SCHEMA}")
    return manifest
