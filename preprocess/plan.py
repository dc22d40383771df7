"""The plan of a dataset: which units of work there are. It only ever grows."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from pipeline.config.schema import PreprocessConfig
from pipeline.errors import MarlinError
from pipeline.storage import AlreadyExists, Conflict, NotFound, Store, Versioned
from pipeline.storage.manifest import parse_json, to_json
from preprocess.corpora import Corpus
from preprocess.quarantine import BadSource
from preprocess.settings import check_same
from preprocess.video import Span, probe

PLAN = "plan.json"
SCHEMA = 1
PROBES_AT_ONCE = 8


@dataclass(frozen=True)
class Piece:
    """A source, or a span of it in seconds (end exclusive, no overlap with the next one)."""

    source: str
    span: Span | None


@dataclass(frozen=True)
class Unit:
    """The unit of work that is done whole or not at all, and retried."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def manifest(self) -> str:
        """Key of its manifest; a unit without one never happened."""
        return f"units/{self.name}.json"


def cut_spans(seconds: float, unit_seconds: int) -> list[Span | None]:
    """Spans of a video of this length: one None when it fits in a unit.

    Spans share no frame, so that held-out frames of one never are training frames of the next; a track that crosses
    a border continues as another track.
    """
    if seconds <= unit_seconds:
        return [None]
    count = -int(-seconds // unit_seconds)
    # A stream can go on a little after the length that its header gives.
    return [
        (float(number * unit_seconds), float((number + 1) * unit_seconds) if number + 1 < count else seconds + 3600.0)
        for number in range(count)
    ]


def make_units(pieces: Iterable[Piece], first: int, unit_sources: int) -> list[Unit]:
    """Units numbered from `first`: whole sources by `unit_sources`, spans alone."""
    units: list[Unit] = []
    waiting: list[Piece] = []

    def close(members: list[Piece]) -> None:
        if members:
            units.append(Unit(f"{first + len(units):06d}", tuple(members)))

    for piece in pieces:
        if piece.span is not None:
            close(waiting)
            waiting = []
            close([piece])
            continue
        waiting.append(piece)
        if len(waiting) == unit_sources:
            close(waiting)
            waiting = []
    close(waiting)
    return units


def update_plan(
    store: Store, corpus: Corpus, cfg: PreprocessConfig, settings: Mapping[str, Any], progress: bool
) -> list[Unit]:
    """Adds units for sources that the stored plan lacks; returns all units.

    Raises:
        UsageError: the plan belongs to other settings.
        MarlinError: there are no sources at all.
    """
    for _ in range(3):
        stored = _read(store)
        units = [] if stored is None else _units(parse_json(stored.data, f"{store.url}/plan.json"), settings, store.url)
        known = {piece.source for unit in units for piece in unit.pieces}
        new = [source.name for source in corpus.sources() if source.name not in known]
        if not units and not new:
            raise MarlinError("the corpus holds no video: check corpus.path (files are chosen by their extension)")
        if not new:
            return units
        units = units + make_units(_pieces(corpus, new, cfg.unit_seconds, progress), len(units), cfg.unit_sources)
        data = to_json({"schema": SCHEMA, **settings, "units": [_to_json(unit) for unit in units]})
        try:
            if stored is None:
                store.create(PLAN, data)
            else:
                store.replace(PLAN, data, stored.version)
            return units
        except (AlreadyExists, Conflict):
            continue  # another run extended it meanwhile: look again
    raise MarlinError(f"{store.url}/{PLAN} keeps changing: another preprocessing run is extending it; try again later")


def _read(store: Store) -> Versioned | None:
    try:
        return store.read_versioned(PLAN)
    except NotFound:
        return None


def _units(plan: Mapping[str, Any], settings: Mapping[str, Any], url: str) -> list[Unit]:
    if plan.get("schema") != SCHEMA:
        raise MarlinError(f"{url}/{PLAN} has schema {plan.get('schema')}, this version reads {SCHEMA}")
    check_same(plan, settings, url)
    return [
        Unit(unit["unit"], tuple(Piece(item["source"], _span(item["span"])) for item in unit["sources"]))
        for unit in plan["units"]
    ]


def _span(value: list[float] | None) -> Span | None:
    return None if value is None else (float(value[0]), float(value[1]))


def _to_json(unit: Unit) -> dict[str, Any]:
    sources = [{"source": piece.source, "span": list(piece.span) if piece.span else None} for piece in unit.pieces]
    return {"unit": unit.name, "sources": sources}


def _pieces(corpus: Corpus, names: list[str], unit_seconds: int, progress: bool) -> Iterator[Piece]:
    def spans(name: str) -> list[Span | None]:
        try:
            with corpus.peek(name) as stream:
                return cut_spans(probe(stream).seconds, unit_seconds)
        except BadSource:
            return [None]  # its unit will put it into quarantine

    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        found = pool.map(spans, names)
        for name, cut in zip(names, tqdm(found, "plan", len(names), disable=not progress, unit=" videos"), strict=True):
            yield from (Piece(name, span) for span in cut)
