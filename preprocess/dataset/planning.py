"""Extends the plan of a dataset by the sources that it lacks."""

import logging
import math
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

from tqdm import tqdm

from pipeline.config.schema import Config, PreprocessConfig
from pipeline.errors import MarlinError
from pipeline.storage import AlreadyExists, Conflict, Store
from pipeline.workers import Workers
from preprocess.corpora import Listing, Media, Source, open_media
from preprocess.corpora.tolerance import check_complete
from preprocess.dataset.drift import check_drift
from preprocess.dataset.labels import merged
from preprocess.dataset.people import known_people
from preprocess.dataset.plan import Piece, Plan, Root, StoredPlan, Unit, read_plan, write_plan
from preprocess.decode.video import Span
from preprocess.quarantine import BadSource

log = logging.getLogger(__name__)

# Probes wait for storage: as many at once as its client has connections, and ahead of those that are looked at, so that
# a slow one holds up none.
PROBES_AT_ONCE, PROBES_AHEAD = 32, 4096
# A corpus of many short videos would otherwise end in as many tiny shards.
UNITS_WANTED, SOURCES_AT_MOST = 500, 64
# A rest that is shorter, in seconds, goes with the span before it: lengths are rounded, it might hold no frame.
LEAST_REST = 0.1
# A stream can go on after the length that its header gives: the last span has no end.
OPEN_END = 1e9
# What claims to be longer is not believed: the video is measured, or else worked on in one piece.
LONGEST = 7 * 24 * 3600.0


def extend_plan(
    store: Store, cfg: Config, listing: Listing, settings: Mapping[str, Any], progress: bool
) -> tuple[Plan, int]:
    """Adds units for sources that the stored plan lacks; returns the plan and how many sources are new.

    Raises:
        UsageError: the plan belongs to other settings, the labels mean something else in it, or a person in it would be
            in several splits.
        MarlinError: there are no sources at all, or too many lack a video or a label.
    """
    media = open_media(cfg.corpus.kind, cfg.corpus.path)
    audio = listing.audio if cfg.preprocess.audio is None else cfg.preprocess.audio
    root = Root(cfg.corpus.kind, media.url, audio, listing.labels)
    for _ in range(3):
        stored = _open_plan(store, settings)
        plan, known, gone = stored.plan, stored.plan.sources(), stored.plan.removed_identities()
        new = [source for source in listing.sources if source.name not in known and not source.everyone & gone]
        if not known and not new:
            raise MarlinError(
                f"{media.url} holds no source of corpus.kind={cfg.corpus.kind}: check corpus.path, kind and splits"
            )
        for line in check_drift(plan, listing, {media.url, *_gone_places(plan.units)}):
            log.warning("%s", line)
        if not new:
            return plan, 0
        check_complete(cfg.corpus, listing)
        merged([plan.labels(), listing.labels])  # before any work: they could not become one dataset
        new = known_people(plan, new, cfg.corpus.kind, cfg.preprocess)
        pieces = _pieces(media, new, cfg.preprocess.unit_seconds, progress)
        units = make_units(pieces, root, len(plan.units), cfg.preprocess, len(new))
        grown = Plan(plan.units + tuple(units), plan.removed)
        try:
            write_plan(store, grown, settings, stored.version)
            return grown, len(new)
        except (AlreadyExists, Conflict):
            continue  # another run extended it meanwhile: look again
    raise MarlinError(
        f"{store.url}/plan.json keeps changing: another preprocessing run is extending it; try again later"
    )


def _open_plan(store: Store, settings: Mapping[str, Any]) -> StoredPlan:
    """The plan; one made with other settings counts as long as no unit was made from it."""
    stored = read_plan(store)
    if stored.version is None or stored.settings == settings or any(True for _ in store.list("units/")):
        return read_plan(store, settings)
    return StoredPlan(Plan(removed=stored.plan.removed), settings, stored.version)


def at_home(units: list[Unit], cfg: Config, listing: Listing) -> list[Unit]:
    """The units; those whose corpus is gone are read from the configured one, if that lists all their sources.

    A corpus may move; but names alone don't make two corpora one, so what a unit was planned from comes first.
    """
    listed = {source.name for source in listing.sources}
    url = open_media(cfg.corpus.kind, cfg.corpus.path).url
    gone = _gone_places(units)
    return [
        replace(unit, root=replace(unit.root, kind=cfg.corpus.kind, path=url))
        if unit.root.path in gone and all(piece.source.name in listed for piece in unit.pieces)
        else unit
        for unit in units
    ]


def _gone_places(units: Iterable[Unit]) -> set[str]:
    """Where corpora of units were and are no longer: one of them may be the configured one, moved."""
    places = {unit.root.path: unit.root.kind for unit in units}
    return {path for path, kind in places.items() if not _can_be_opened(kind, path)}


def _can_be_opened(kind: str, path: str) -> bool:
    try:
        next(iter(open_media(kind, path).files()), None)
    except MarlinError:
        return False
    return True


def cut_spans(span: Span | None, seconds: float, unit_seconds: int) -> list[tuple[Span | None, float]]:
    """Spans of a video, or of a segment of one, with their lengths: one when it fits in a unit.

    Spans share no frame, so that held-out frames of one never are training frames of the next; a track that crosses
    a border continues as another track.
    """
    if span is not None:
        seconds = span[1] - span[0]
    count = max(1, math.ceil((seconds - LEAST_REST) / unit_seconds))
    if count == 1 or seconds > LONGEST:
        return [(span, seconds if seconds <= LONGEST else 0.0)]
    start, end = span or (0.0, OPEN_END)
    borders = [start + number * unit_seconds for number in range(count)]
    lengths = [float(unit_seconds)] * (count - 1) + [seconds - (count - 1) * unit_seconds]
    return [((a, b), length) for a, b, length in zip(borders, [*borders[1:], end], lengths, strict=True)]


def make_units(pieces: Iterable[Piece], root: Root, first: int, cfg: PreprocessConfig, sources: int) -> list[Unit]:
    """Units numbered from `first`: pieces in order, bounded in number and in seconds."""
    most = cfg.unit_sources or min(SOURCES_AT_MOST, max(1, sources // UNITS_WANTED))
    groups: list[list[Piece]] = []
    for piece in pieces:
        full = (
            not groups
            or len(groups[-1]) == most
            or sum(other.seconds for other in groups[-1]) + piece.seconds > cfg.unit_seconds
        )
        if full:
            groups.append([])
        groups[-1].append(replace(piece, number=len(groups[-1])))
    return [Unit(f"{first + number:06d}", root, tuple(group)) for number, group in enumerate(groups)]


def _pieces(media: Media, sources: list[Source], unit_seconds: int, progress: bool) -> list[Piece]:
    with closing(_lengths(media, sources)) as lengths:
        found = tqdm(lengths, "plan", len(sources), disable=None if progress else True, unit=" videos")
        return [
            Piece(replace(source, span=None), span, length)
            for source, seconds in zip(sources, found, strict=True)
            for span, length in cut_spans(source.span, seconds, unit_seconds)
        ]


def _lengths(media: Media, sources: Iterable[Source]) -> Generator[float, None, None]:
    """Seconds of each source in order, several looked up at once; 0 where they can't be known."""
    halt = Event()
    pool = Workers(PROBES_AT_ONCE, "probes")
    try:
        waiting: deque[Future[float]] = deque()
        for source in sources:
            waiting.append(pool.submit(partial(_length, media, source, halt)))
            if len(waiting) > PROBES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Stopped by a signal or by a failure, nobody waits for the rest, nor for a server that does not answer.
        halt.set()
        pool.close()


def _length(media: Media, source: Source, halt: Event) -> float:
    if source.span:
        return 0.0
    try:
        seconds = media.probe(source).seconds
        return seconds if 0 < seconds <= LONGEST else media.measure(source, halt)
    except BadSource:
        return 0.0  # its unit will put it into quarantine
