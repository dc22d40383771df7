"""Reading a finished dataset: what is in it and where its bytes are. Every stage that reads datasets does so here."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline.errors import MarlinError
from pipeline.storage import NotFound, Store
from pipeline.storage.manifest import FileEntry

SCHEMA = 1
REMAKE = "remove dataset.json and the manifest of that unit, then run `marlin preprocess`"
_PARALLEL_READS = 16


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
        split: "train" or "val".
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
class Dataset:
    """A dataset's index, without its frames.

    Attributes:
        url: where it lies.
        identity: sha256 of dataset.json; a run is bound to it.
        info: the content of dataset.json.
        samples: all samples, in the order of the units and then of each unit.
        shards: size and sha256 of each shard, by name.
        units: the unit manifests as they were read.
    """

    url: str
    identity: str
    info: Mapping[str, Any]
    samples: tuple[Sample, ...]
    shards: Mapping[str, FileEntry]
    units: tuple[Mapping[str, Any], ...]

    def of_split(self, split: str) -> tuple[Sample, ...]:
        """The samples of one split, in dataset order."""
        return tuple(sample for sample in self.samples if sample.split == split)


def load_dataset(store: Store) -> Dataset:
    """Read and check the index of the dataset in `store`.

    Raises:
        MarlinError: there is no finished dataset, its schema is not ours, or a unit manifest is not the one committed.
    """
    try:
        data = store.read("dataset.json")
    except NotFound:
        raise MarlinError(
            f"{store.url} holds no finished dataset: run `marlin preprocess`, or set data.dataset"
        ) from None
    info = _parse(data, f"{store.url}/dataset.json")
    entries = _entries(info, "units", f"{store.url}/dataset.json")
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:  # thousands of small objects: latency counts on S3
        units = tuple(pool.map(lambda entry: _read_unit(store, entry), entries))
    shards: dict[str, FileEntry] = {}
    samples: list[Sample] = []
    for entry, unit in zip(entries, units, strict=True):
        where = f"{store.url}/{entry.name}"
        unit_shards = _entries(unit, "shards", where)
        shards.update({shard.name: shard for shard in unit_shards})
        samples.extend(_samples(unit, [shard.name for shard in unit_shards], where))
    if len({sample.key for sample in samples}) != len(samples):
        raise MarlinError(f"{store.url}: sample keys are not unique: preprocess into a new dataset")
    return Dataset(store.url, hashlib.sha256(data).hexdigest(), info, tuple(samples), shards, units)


def _read_unit(store: Store, entry: FileEntry) -> Mapping[str, Any]:
    data = store.read(entry.name)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise MarlinError(
            f"{store.url}/{entry.name} is not the file that dataset.json lists (sha256 differs): "
            f"restore it, or {REMAKE}"
        )
    return _parse(data, f"{store.url}/{entry.name}")


def _parse(data: bytes, where: str) -> Mapping[str, Any]:
    try:
        content: dict[str, Any] = json.loads(data)
        schema = content.get("schema")
    except (ValueError, AttributeError):
        raise MarlinError(f"{where} is damaged: {REMAKE}") from None
    if schema != SCHEMA:
        raise MarlinError(f"{where} has schema {schema!r}, this version reads {SCHEMA}: use the version that wrote it")
    return content


def _entries(content: Mapping[str, Any], field: str, where: str) -> list[FileEntry]:
    try:
        return [FileEntry.from_dict(entry) for entry in content[field]]
    except (KeyError, TypeError, AttributeError):
        raise MarlinError(f"{where} has no list of {field}: {REMAKE}") from None


def _samples(unit: Mapping[str, Any], shards: list[str], where: str) -> list[Sample]:
    name = where.rpartition("/")[2].removesuffix(".json")
    try:
        return [
            Sample(
                key=raw["key"],
                unit=name,
                shard=shards[raw["shard"]],
                frames=raw["frames"],
                source=raw["source"],
                identity=raw["identity"],
                track=raw["track"],
                start=raw["start"],
                split=raw["split"],
                parts={part: (place[0], place[1]) for part, place in raw["parts"].items()},
            )
            for raw in unit["samples"]
        ]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise MarlinError(f"{where}: a sample is incomplete ({error}): {REMAKE}") from None
