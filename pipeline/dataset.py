"""Reading a finished dataset: what is in it and where its bytes are. Every stage that reads datasets does so here."""

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pipeline.errors import MarlinError
from pipeline.storage import NotFound, Store
from pipeline.storage.manifest import FileEntry

SCHEMA = 2
REMAKE = "run `marlin dataset verify --repair`, then `marlin preprocess`"
_PARALLEL_READS = 16


class Damaged(MarlinError):
    """An object of a dataset is not what was committed.

    Attributes:
        what: what is wrong with which object, without the fix.
    """

    def __init__(self, what: str, fix: str = REMAKE) -> None:
        super().__init__(f"{what}: {fix}")
        self.what, self._fix = what, fix

    def __reduce__(self) -> tuple[type["Damaged"], tuple[str, str]]:
        return Damaged, (self.what, self._fix)


class Parts(Mapping[str, tuple[int, int]]):
    """(offset, length) in the shard of each part of a sample, by name.

    Samples with the same parts share their names: a kilobyte a sample, where a dict of tuples takes twelve.
    """

    __slots__ = ("_places", "_rows")

    def __init__(self, rows: Mapping[str, int], places: "array[int]") -> None:
        self._rows, self._places = rows, places

    def __getitem__(self, name: str) -> tuple[int, int]:
        row = 2 * self._rows[name]
        return self._places[row], self._places[row + 1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


@dataclass(frozen=True)
class Sample:
    """One tracked face over consecutive frames.

    Attributes:
        key: unique name in the dataset.
        unit: the unit that made it.
        shard: name of the tar file that holds it.
        frames: number of frames.
        source: name of the raw video.
        identity: who it shows, as far as the corpus tells.
        track: number of the face track in its source.
        start: its first frame, in frames of the source.
        split: "train", "val" or "test".
        parts: (offset, length) in the shard of each part: "000.jpg" …, "regions.npy", "json", …
    """

    key: str
    unit: str
    shard: str
    frames: int
    source: str
    identity: str
    track: int
    start: int
    split: str
    parts: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class SourceRecord:
    """What the corpus knows of a raw video: who is seen in it, and its labels by the names of `Dataset.labels`."""

    name: str
    identity: str
    labels: Mapping[str, Any]


@dataclass(frozen=True)
class Dataset:
    """A dataset's index, without its frames.

    Attributes:
        url: where it lies.
        identity: sha256 of dataset.json; a run is bound to it.
        info: the content of dataset.json.
        samples: the samples to use, in the order of the units and then of each unit.
        excluded: how many samples of the shards are left out as near-duplicates.
        shards: size and sha256 of each shard, by name.
        sources: the raw videos that gave samples, by name.
        units: the unit manifests as they were read, without the index of their samples.
    """

    url: str
    identity: str
    info: Mapping[str, Any]
    samples: tuple[Sample, ...]
    excluded: int
    shards: Mapping[str, FileEntry]
    sources: Mapping[str, SourceRecord]
    units: tuple[Mapping[str, Any], ...]

    @property
    def labels(self) -> Mapping[str, Any]:
        """Schema of the labels in `sources`: type and meaning of each, by name."""
        labels: Mapping[str, Any] = self.info["labels"]
        return labels

    def of_split(self, split: str) -> tuple[Sample, ...]:
        """The samples of one split, in dataset order."""
        return tuple(sample for sample in self.samples if sample.split == split)


def load_dataset(store: Store) -> Dataset:
    """Read and check the index of the dataset in `store`.

    Raises:
        Damaged: a file of its index is not the one committed.
        MarlinError: there is no finished dataset, or its schema is not ours.
    """
    data = read_info(store)
    where = f"{store.url}/dataset.json"
    info = parse(data, where)
    entries = file_entries(info, "units", where)
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:  # thousands of small objects: latency counts on S3
        found = pool.map(lambda entry: read_committed(store, entry), entries)
        units = tuple(
            parse_unit(content, f"{store.url}/{entry.name}") for entry, content in zip(entries, found, strict=True)
        )
    keys = {sample.key for unit in units for sample in unit.samples}
    if len(keys) != sum(len(unit.samples) for unit in units):
        raise MarlinError(f"{store.url}: sample keys are not unique: preprocess into a new dataset")
    excluded = {entry["key"] for entry in read_exclusions(store, info)}
    return Dataset(
        url=store.url,
        identity=hashlib.sha256(data).hexdigest(),
        info=info,
        samples=tuple(sample for unit in units for sample in unit.samples if sample.key not in excluded),
        excluded=len(excluded & keys),
        shards={shard.name: shard for unit in units for shard in unit.shards},
        sources={record.name: record for unit in units for record in unit.sources},
        units=tuple(unit.head for unit in units),
    )


def read_info(store: Store) -> bytes:
    """The bytes of dataset.json.

    Raises:
        MarlinError: there is none.
    """
    try:
        return store.read("dataset.json")
    except NotFound:
        raise MarlinError(
            f"{store.url} holds no finished dataset: run `marlin preprocess`, or set data.dataset"
        ) from None


def read_committed(store: Store, entry: FileEntry, lister: str = "dataset.json") -> bytes:
    """The bytes of a small object that a manifest lists.

    Raises:
        NotFound: it is gone.
        Damaged: it is not what was committed.
    """
    data = store.read(entry.name)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        what = f"{store.url}/{entry.name} is not the file that {lister} lists (sha256 differs)"
        raise Damaged(what, f"restore it, or {REMAKE}")
    return data


def read_exclusions(store: Store, info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The samples to leave out: `key`, `reason`, and the `kept` one that is used in their place.

    Raises:
        NotFound: the list that dataset.json names is gone.
        Damaged: it is not what was committed.
    """
    if not info.get("exclusions"):
        return []
    [entry] = file_entries({"exclusions": [info["exclusions"]]}, "exclusions", f"{store.url}/dataset.json")
    where = f"{store.url}/{entry.name}"
    content = parse(read_committed(store, entry), where)
    try:
        return [{name: str(raw[name]) for name in ("key", "reason", "kept")} for raw in content["excluded"]]
    except (KeyError, TypeError) as error:
        raise Damaged(f"{where}: an entry is incomplete ({error})") from None


def parse(data: bytes, where: str) -> Mapping[str, Any]:
    """The content of an object of a dataset's index.

    Raises:
        Damaged: no JSON.
        MarlinError: of another schema version.
    """
    try:
        content: dict[str, Any] = json.loads(data)
        schema = content.get("schema")
    except (ValueError, AttributeError):
        raise Damaged(f"{where} is damaged") from None
    if schema != SCHEMA:
        raise MarlinError(f"{where} has schema {schema!r}, this version reads {SCHEMA}: use the version that wrote it")
    return content


def file_entries(content: Mapping[str, Any], field: str, where: str) -> list[FileEntry]:
    """A list of committed files out of a manifest.

    Raises:
        Damaged: it is missing or damaged.
    """
    try:
        return [FileEntry.from_dict(entry) for entry in content[field]]
    except (KeyError, TypeError, AttributeError):
        raise Damaged(f"{where} has no list of {field}") from None


@dataclass(frozen=True)
class UnitIndex:
    """A unit manifest, read; `head` is all of it but the samples."""

    head: Mapping[str, Any]
    shards: Sequence[FileEntry]
    samples: Sequence[Sample]
    sources: Sequence[SourceRecord]


def parse_unit(data: bytes, where: str) -> UnitIndex:
    """Reads a unit manifest.

    Raises:
        Damaged: it is incomplete or no JSON.
        MarlinError: it is of another schema version.
    """
    content = parse(data, where)
    shards = file_entries(content, "shards", where)
    rows: dict[tuple[str, ...], Mapping[str, int]] = {}
    try:
        samples = [_sample(raw, content["unit"], shards, rows) for raw in content["samples"]]
        sources = [SourceRecord(raw["source"], raw["identity"], raw["labels"]) for raw in content["sources"]]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise Damaged(f"{where}: a sample or source is incomplete ({error})") from None
    head = {name: value for name, value in content.items() if name != "samples"}
    return UnitIndex(head, shards, samples, sources)


def _sample(
    raw: Mapping[str, Any], unit: str, shards: list[FileEntry], rows: dict[tuple[str, ...], Mapping[str, int]]
) -> Sample:
    names, places = tuple(raw["parts"]), array("Q", chain.from_iterable(raw["parts"].values()))
    if len(places) != 2 * len(names):
        raise ValueError(f"parts of {raw['key']}")
    if names not in rows:
        rows[names] = {name: row for row, name in enumerate(names)}
    return Sample(
        key=raw["key"],
        unit=unit,
        shard=shards[raw["shard"]].name,
        frames=raw["frames"],
        source=raw["source"],
        identity=raw["identity"],
        track=raw["track"],
        start=raw["start"],
        split=raw["split"],
        parts=Parts(rows[names], places),
    )
