"""The plan of a dataset: which units of work there are, and which sources were taken out. It only ever grows."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pipeline.dataset import Damaged
from pipeline.errors import MarlinError
from pipeline.storage import NotFound, Store
from pipeline.storage.manifest import to_json
from preprocess.corpora import Source
from preprocess.dataset.labels import merged
from preprocess.dataset.settings import check_same
from preprocess.decode.video import Span

PLAN = "plan.json"
SCHEMA = 2
_RESTORE = "restore it from a copy, or start a new dataset under another corpus.name"


@dataclass(frozen=True)
class Root:
    """The corpus that units were planned from.

    Attributes:
        kind, path: as in the `corpus` section then.
        audio: whether samples keep their sound.
        labels: schema of the labels of its sources.
    """

    kind: str
    path: str
    audio: bool
    labels: Mapping[str, Any]


@dataclass(frozen=True)
class Piece:
    """A source, or a span of it in seconds (end exclusive).

    Attributes:
        seconds: its expected length, 0 when unknown.
        number: its place in its unit, kept when others are taken out: keys of samples hold it.
    """

    source: Source
    span: Span | None
    seconds: float = 0.0
    number: int = 0


@dataclass(frozen=True)
class Unit:
    """The unit of work that is done whole or not at all, and retried."""

    name: str
    root: Root
    pieces: tuple[Piece, ...]

    @property
    def seconds(self) -> float:
        """Expected length of its video."""
        return sum(piece.seconds for piece in self.pieces)


@dataclass(frozen=True)
class Removal:
    """A source that was taken out for good.

    Attributes:
        source: its name.
        reason: why, in the words of who took it out.
        identity: who was taken out, when it was a person and not a source: nothing new of theirs comes in again.
        units: the units that held it.
    """

    source: str
    reason: str
    identity: str = ""
    units: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All units in order, without the pieces of removed sources."""

    units: tuple[Unit, ...] = ()
    removed: tuple[Removal, ...] = ()

    def sources(self) -> set[str]:
        """Names of all sources ever planned."""
        return {piece.source.name for unit in self.units for piece in unit.pieces} | {
            gone.source for gone in self.removed
        }

    def without(self, removals: tuple[Removal, ...]) -> "Plan":
        """The plan after further removals."""
        names = {gone.source for gone in removals}
        units = tuple(
            replace(unit, pieces=tuple(piece for piece in unit.pieces if piece.source.name not in names))
            for unit in self.units
        )
        return Plan(units, self.removed + removals)

    def labels(self) -> dict[str, Any]:
        """Schema of the labels of all corpora. Raises `UsageError` where they contradict each other."""
        return merged({id(unit.root): unit.root.labels for unit in self.units}.values())

    def removed_identities(self) -> set[str]:
        """Who was taken out, under the names that they were asked for."""
        return {gone.identity for gone in self.removed if gone.identity}


@dataclass(frozen=True)
class StoredPlan:
    """A plan, the settings that it belongs to, and the version of its object; None where there is none yet."""

    plan: Plan
    settings: Mapping[str, Any]
    version: str | None


def read_plan(store: Store, settings: Mapping[str, Any] | None = None) -> StoredPlan:
    """The plan of a dataset, empty when there is none.

    Args:
        store: the dataset.
        settings: what it must have been made with; None takes any.

    Raises:
        UsageError: it belongs to other settings.
        Damaged: it is no plan, or gone although units are there: what they hold and what was taken out stands in it.
        MarlinError: it is of another schema version.
    """
    where = f"{store.url}/{PLAN}"
    try:
        stored = store.read_versioned(PLAN)
    except NotFound:
        if any(True for _ in store.list("units/")):
            raise Damaged(f"{where} is gone, and units that were made from it are there", _RESTORE) from None
        return StoredPlan(Plan(), settings or {}, None)
    try:
        content = json.loads(stored.data)
        schema = content.get("schema")
    except (ValueError, AttributeError):
        raise Damaged(f"{where} is damaged (no JSON)", _RESTORE) from None
    if schema != SCHEMA:
        raise MarlinError(f"{where} has schema {schema}, this version reads {SCHEMA}: use the version that wrote it")
    if settings is not None:
        check_same(content, settings, store.url)
    try:
        made_with = {name: content[name] for name in ("config", "models")}
        return StoredPlan(_parse(content), made_with, stored.version)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise Damaged(f"{where} is damaged ({type(error).__name__}: {error})", _RESTORE) from None


def write_plan(store: Store, plan: Plan, settings: Mapping[str, Any], version: str | None) -> None:
    """Puts a plan over the version it was made from.

    Raises:
        AlreadyExists, Conflict: another run changed it meanwhile.
    """
    data = to_json({"schema": SCHEMA, **settings, **_to_json(plan)}, compact=True)
    if version is None:
        store.create(PLAN, data)
    else:
        store.replace(PLAN, data, version)


def _to_json(plan: Plan) -> dict[str, Any]:
    roots = list({_root_key(unit.root): unit.root for unit in plan.units}.values())
    places = {_root_key(root): place for place, root in enumerate(roots)}
    return {
        "corpora": [asdict(root) for root in roots],
        "units": [
            {
                "unit": unit.name,
                "corpus": places[_root_key(unit.root)],
                "sources": [_piece_json(piece) for piece in unit.pieces],
            }
            for unit in plan.units
        ],
        "removed": [asdict(gone) for gone in plan.removed],
    }


def _root_key(root: Root) -> bytes:
    return to_json(asdict(root))


_UNSAID = Source("", "", "")


def _piece_json(piece: Piece) -> dict[str, Any]:
    given = {field.name: getattr(piece.source, field.name) for field in fields(Source) if field.name != "span"}
    known = {name: value for name, value in given.items() if value != getattr(_UNSAID, name)}
    return {
        **known,
        "cut": list(piece.span) if piece.span else None,
        "seconds": round(piece.seconds, 3),
        "number": piece.number,
    }


def _parse(content: Mapping[str, Any]) -> Plan:
    roots = [Root(**root) for root in content["corpora"]]
    return Plan(
        tuple(
            Unit(unit["unit"], roots[unit["corpus"]], tuple(_piece(item) for item in unit["sources"]))
            for unit in content["units"]
        ),
        tuple(Removal(**{**gone, "units": tuple(gone["units"])}) for gone in content["removed"]),
    )


def _piece(item: Mapping[str, Any]) -> Piece:
    known = {name: value for name, value in item.items() if name not in ("cut", "seconds", "number")}
    span = None if item["cut"] is None else (float(item["cut"][0]), float(item["cut"][1]))
    source = Source(**{**known, "people": tuple(known.get("people", ()))})
    return Piece(source, span, item["seconds"], item["number"])
