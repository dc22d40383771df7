"""The records of a dataset, field by field: what `docs/formats.md` tables and `marlin dataset verify` checks."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.dataset import SCHEMA

Split = Literal["train", "val", "test"]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1)]
Fingerprint = Annotated[str, Field(pattern=r"^([0-9a-f]{36})?$")]
Span = tuple[float, float]
_Schema = Annotated[int, Field(ge=SCHEMA, le=SCHEMA)]


class Record(BaseModel):
    """Base of all records: these fields, of these types, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class SampleRecord(Record):
    """`<key>.json`."""

    key: Text
    source: Text
    identity: str
    span: Span | None
    track: Count
    start: Count
    frames: Positive
    split: Split
    fps: Annotated[float, Field(gt=0)]
    size: Positive
    margin: Seconds
    detector: Text
    parser: Text
    models: dict[str, Sha256]
    labels: dict[str, Any]
    boxes: list[tuple[float, float, float, float]]
    times: list[float]
    unparsed: list[Count]
    phash: list[Fingerprint]


class FileRecord(Record):
    """A file that a manifest commits to."""

    name: Text
    size: Count
    sha256: Sha256


class SampleEntry(Record):
    """A sample in the index of its unit."""

    key: Text
    shard: Count
    frames: Positive
    source: Text
    identity: str
    track: Count
    start: Count
    split: Split
    size: Positive
    grid: Positive
    phash: list[Fingerprint]
    parts: dict[str, tuple[Count, Count]]


class SourceEntry(Record):
    """A source, or a span of one, that gave samples."""

    source: Text
    span: Span | None
    identity: str
    labels: dict[str, Any]
    sha256: Sha256
    seconds: Seconds
    fps: Annotated[float, Field(gt=0)]
    frames: Positive
    tracks: Positive
    samples: Positive
    unparsed: Count
    dropped: dict[str, Count]


class QuarantineEntry(Record):
    """A source, or a span of one, that gave none."""

    source: Text
    span: Span | None
    reason: Text
    detail: str


class UnitManifest(Record):
    """`units/<unit>.json`."""

    model_config = ConfigDict(extra="forbid")

    schema_: _Schema = Field(alias="schema")
    unit: Text
    shards: list[FileRecord]
    samples: list[SampleEntry]
    sources: list[SourceEntry]
    quarantined: list[QuarantineEntry]


class RemovedEntry(Record):
    """A source that was taken out."""

    source: Text
    identity: str
    reason: Text


class Counts(Record):
    """Sums over the samples that are used, and over the sources."""

    sources: Count
    quarantined: Count
    units: Count
    tracks: Count
    samples: Count
    excluded: Count
    frames: Count


class DatasetInfo(Record):
    """`dataset.json`."""

    schema_: _Schema = Field(alias="schema")
    name: Text
    size: Positive
    patch: Positive
    frames: Positive
    regions: list[str]
    config: dict[str, Any]
    models: list[dict[str, Any]]
    parser: Text
    versions: dict[str, Any]
    labels: dict[str, Any]
    findings: list[str]
    counts: Counts
    splits: dict[Split, Count]
    quarantine: dict[str, Count]
    dropped: dict[str, Count]
    removed: list[RemovedEntry]
    exclusions: FileRecord | None
    units: list[FileRecord]


def record_problems(record: type[BaseModel], data: bytes) -> list[str]:
    """What of a JSON object does not fit its record, a line each; empty when all does."""
    try:
        record.model_validate_json(data)
    except ValidationError as error:
        return [f"{'.'.join(map(str, one['loc'])) or 'content'}: {one['msg']}" for one in error.errors()]
    return []


def label_problems(schema: Mapping[str, Any], labels: Mapping[str, Any]) -> list[str]:
    """What of a source's labels does not fit the dataset's label schema, a line each."""
    return [
        f"label {name}: {value!r} is not {schema[name]['type']}"
        if name in schema
        else f"label {name} is not in the schema"
        for name, value in labels.items()
        if name not in schema or not _fits(schema[name], value)
    ]


def _fits(kind: Mapping[str, Any], value: Any) -> bool:
    if kind["type"] == "class":
        return value in kind["names"]
    values = value if isinstance(value, list) else [value]
    if "names" in kind and len(values) != len(kind["names"]):
        return False
    if kind["type"] == "binary":
        return all(type(one) is int and one in (0, 1) for one in values)
    return kind["type"] != "real" or all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
