"""Processes one unit: its sources to shards, and one manifest that commits them."""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from pipeline.config.schema import PreprocessConfig
from pipeline.errors import MarlinError
from pipeline.storage import AlreadyExists, Store
from pipeline.storage.manifest import FileEntry, parse_json, sha256_file, to_json
from preprocess.clip import Clip
from preprocess.corpora import Corpus
from preprocess.cutout import make_samples
from preprocess.find import Found, Stats, find_faces
from preprocess.models import Networks
from preprocess.plan import Piece, Unit
from preprocess.quarantine import BadSource
from preprocess.sample import SampleBuilder
from preprocess.shards import ShardWriter, shard_entries

log = logging.getLogger(__name__)

SCHEMA = 1


class _Spoiled(Exception):
    """A source turned out bad when samples of it were in the shard already: the unit starts again without it."""

    def __init__(self, piece: Piece, bad: BadSource) -> None:
        super().__init__(piece.source)
        self.piece, self.bad = piece, bad


@dataclass
class Content:
    """What goes into a unit's manifest, next to its shards."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    quarantined: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class UnitProcessor:
    """Everything a worker needs to process units."""

    cfg: PreprocessConfig
    corpus: Corpus
    store: Store
    networks: Networks

    def process(self, unit: Unit) -> dict[str, Any]:
        """Writes the unit's shards and commits its manifest; returns the manifest that counts.

        Safe to repeat and to run twice at once: whoever commits first wins, and the loser's shards are removed.

        Raises:
            MarlinError: storage fails or is full. Bad sources never raise: they are in the manifest, quarantined.
        """
        bad: dict[Piece, BadSource] = {}
        while True:
            try:
                return self._attempt(unit, bad)
            except _Spoiled as spoiled:
                bad[spoiled.piece] = spoiled.bad

    def _attempt(self, unit: Unit, bad: Mapping[Piece, BadSource]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="marlin-unit-") as folder:
            writer, content = ShardWriter(Path(folder)), Content()
            for number, piece in enumerate(unit.pieces):
                key = unit.name if len(unit.pieces) == 1 else f"{unit.name}-s{number:03d}"
                self._process_piece(piece, bad.get(piece), key, writer, content)
            paths = writer.close()
            shards = shard_entries(unit.name, paths)
            for entry, path in zip(shards, paths, strict=True):
                self.store.write_file(entry.name, path)
        return commit(self.store, unit, shards, content)

    def _process_piece(
        self, piece: Piece, known: BadSource | None, key: str, writer: ShardWriter, content: Content
    ) -> None:
        source = self.corpus.source(piece.source)
        before = len(content.samples)
        try:
            if known is not None:
                raise known
            with self.corpus.open(piece.source) as file:
                content.sources.append(self._process_file(Clip(file, piece.span, source, key), writer, content))
        except (MarlinError, MemoryError):
            raise
        except Exception as error:
            bad = _as_bad(error)
            if len(content.samples) > before:
                raise _Spoiled(piece, bad) from error
            log.warning("quarantined %s: %s", piece.source, bad)
            content.quarantined.append(quarantine_entry(piece, bad))

    def _process_file(self, clip: Clip, writer: ShardWriter, content: Content) -> dict[str, Any]:
        sha256 = sha256_file(clip.file)
        found = find_faces(clip, self.cfg, self.networks)
        stats = Stats()
        for builder in make_samples(clip, found, stats, self.cfg, self.networks):
            shard, parts = writer.add(builder.head["key"], builder.parts())
            content.samples.append(_sample_entry(builder, shard, parts, self.cfg))
        return _source_entry(clip, sha256, found, stats)


def quarantine_entry(piece: Piece, bad: BadSource) -> dict[str, Any]:
    """A quarantined source as it stands in a unit's manifest."""
    return {**_piece_entry(piece), "reason": bad.reason, "detail": bad.detail}


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
    try:
        store.create(unit.manifest, to_json(manifest))
        return manifest
    except AlreadyExists:
        winner = read_manifest(store, unit.name)
        kept = {entry["name"] for entry in winner["shards"]}
        for entry in shards:
            if entry.name not in kept:
                store.delete(entry.name)
        return winner


def read_manifest(store: Store, unit: str) -> dict[str, Any]:
    """A unit's committed manifest.

    Raises:
        NotFound: the unit is not done.
        MarlinError: it is of another schema version.
    """
    manifest: dict[str, Any] = parse_json(store.read(f"units/{unit}.json"), f"{store.url}/units/{unit}.json")
    if manifest.get("schema") != SCHEMA:
        raise MarlinError(f"{store.url}/units/{unit}.json has schema {manifest.get('schema')}, not {SCHEMA}")
    return manifest


def _as_bad(error: Exception) -> BadSource:
    if isinstance(error, BadSource):
        return error
    if isinstance(error, av.FFmpegError):
        return BadSource("damaged", str(error))
    log.debug("unforeseen error", exc_info=error)
    return BadSource("failed", f"{type(error).__name__}: {error}")


def _piece_entry(piece: Piece) -> dict[str, Any]:
    return {"source": piece.source, "span": list(piece.span) if piece.span else None}


def _sample_entry(
    builder: SampleBuilder, shard: int, parts: dict[str, tuple[int, int]], cfg: PreprocessConfig
) -> dict[str, Any]:
    head, run = builder.head, builder.run
    return {
        "key": head["key"],
        "shard": shard,
        "frames": run.frames,
        "source": head["source"],
        "identity": head["identity"],
        "track": head["track"],
        "start": run.start,
        "split": run.split,
        "size": cfg.size,
        "grid": cfg.size // cfg.patch,
        "parts": {name: list(place) for name, place in parts.items()},
    }


def _source_entry(clip: Clip, sha256: str, found: Found, stats: Stats) -> dict[str, Any]:
    return {
        **_piece_entry(Piece(clip.source.name, clip.span)),
        "sha256": sha256,
        "seconds": found.seconds,
        "fps": round(found.fps, 4),
        "frames": found.frames,
        "tracks": stats.tracks,
        "samples": stats.samples,
        "unparsed": stats.unparsed,
        "dropped": stats.dropped,
    }
