"""Processes one unit: its sources to shards, and one manifest that commits them."""

import errno
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from pipeline.config.schema import PreprocessConfig
from pipeline.errors import MarlinError
from pipeline.storage import Store
from pipeline.storage.atomic import os_error
from preprocess.corpora import Opener
from preprocess.corpora.clip import Clip
from preprocess.cutout import make_samples
from preprocess.dataset.manifests import Content, commit, piece_entry, quarantine_entry
from preprocess.dataset.plan import Unit
from preprocess.dataset.sample import SampleBuilder
from preprocess.dataset.shards import ShardWriter, shard_entries
from preprocess.decode.audio import flac
from preprocess.faces.find import Found, Stats, find_faces, whole_pictures
from preprocess.given import given_samples
from preprocess.models import Networks
from preprocess.quarantine import BadSource

log = logging.getLogger(__name__)


class _Spoiled(Exception):
    """A source turned out bad when samples of it were in the shard already: the unit starts again without it."""

    def __init__(self, number: int, bad: BadSource) -> None:
        super().__init__(bad.detail)
        self.number, self.bad = number, bad


@dataclass(frozen=True)
class UnitProcessor:
    """Everything a worker needs to process units; `networks` is None where the configuration uses none."""

    cfg: PreprocessConfig
    store: Store
    networks: Networks | None
    open_places: Callable[[str, str], Opener]

    def process(self, unit: Unit, known: Mapping[int, BadSource] | None = None) -> dict[str, Any]:
        """Writes the unit's shards and commits its manifest; returns the manifest that counts.

        Safe to repeat and to run twice at once: whoever commits first wins, and the loser's shards are removed.

        Args:
            unit: the unit.
            known: sources that are not to be opened, by their number in the unit.

        Raises:
            MarlinError: storage fails or is full. Bad sources never raise: they are in the manifest, quarantined.
        """
        bad = dict(known or {})
        while True:
            try:
                return self._attempt(unit, bad)
            except _Spoiled as spoiled:
                bad[spoiled.number] = spoiled.bad

    def _attempt(self, unit: Unit, bad: Mapping[int, BadSource]) -> dict[str, Any]:
        places = self.open_places(unit.root.kind, unit.root.path)
        with tempfile.TemporaryDirectory(prefix="marlin-unit-") as folder:
            writer, content = ShardWriter(Path(folder)), Content()
            for number, piece in enumerate(unit.pieces):
                whole = len(unit.pieces) == 1 and piece.number == 0
                key = unit.name if whole else f"{unit.name}-s{piece.number:03d}"
                before = len(content.samples)
                try:
                    if number in bad:
                        raise bad[number]
                    with places.open(piece.source) as file:
                        clip = Clip(file, piece.span, piece.source, key)
                        content.sources.append(self._process_file(clip, unit.root.audio, writer, content))
                except Exception as error:
                    _check_machine(folder, error)
                    found = _as_bad(error)
                    if len(content.samples) > before:
                        raise _Spoiled(number, found) from error
                    log.warning("quarantined %s: %s", piece.source.name, found)
                    content.quarantined.append(quarantine_entry(piece, found))
            paths = writer.close()
            shards = shard_entries(unit.name, paths)
            for entry, path in zip(shards, paths, strict=True):
                self.store.write_file(entry.name, path)
            manifest = commit(self.store, unit, shards, content)
            for entry, path in zip(shards, paths, strict=True):
                # A removal that still found the unit unfinished may have taken its shards for leftovers.
                if entry.to_dict() in manifest["shards"] and not self.store.exists(entry.name):
                    self.store.write_file(entry.name, path)
        return manifest

    def _process_file(self, clip: Clip, audio: bool, writer: ShardWriter, content: Content) -> dict[str, Any]:
        sha256 = clip.sha256()
        stats = Stats()
        found, samples = self._two_passes(clip, stats)
        for builder in samples:
            sound = flac(clip.file, *builder.seconds) if audio else None
            shard, parts = writer.add(builder.head["key"], builder.parts(sound, clip.source.text))
            content.samples.append(_sample_entry(builder, shard, parts, self.cfg))
        return _source_entry(clip, sha256, found, stats)

    def _two_passes(self, clip: Clip, stats: Stats) -> tuple[Found, Iterator[SampleBuilder]]:
        """What the first pass found, and the second one, not begun yet."""
        cfg, networks = self.cfg, self.networks
        if networks is None:
            found = whole_pictures(clip, cfg)
            return found, given_samples(clip, found, stats, cfg)
        found = find_faces(clip, cfg, networks.detector, networks.mesh)
        return found, make_samples(clip, found, stats, cfg, networks)


def _check_machine(folder: str, error: Exception) -> None:
    """Raises what is no fault of the source: storage that fails, too little memory, a full scratch disk."""
    # FFmpeg says "no memory" of sizes that a damaged file makes up.
    short = isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError)
    if short or isinstance(error, MarlinError):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise os_error(folder, error) from error


def _as_bad(error: Exception) -> BadSource:
    if isinstance(error, BadSource):
        return error
    if isinstance(error, av.FFmpegError):
        return BadSource("damaged", str(error))
    log.debug("unforeseen error", exc_info=error)
    return BadSource("failed", f"{type(error).__name__}: {error}")


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
        "phash": list(head["phash"]),
        "parts": {name: list(place) for name, place in parts.items()},
    }


def _source_entry(clip: Clip, sha256: str, found: Found, stats: Stats) -> dict[str, Any]:
    return {
        **piece_entry(clip.source.name, clip.span),
        "identity": clip.source.identity,
        "labels": dict(clip.source.labels),
        "sha256": sha256,
        "seconds": found.seconds,
        "fps": round(found.fps, 4),
        "frames": found.frames,
        "tracks": stats.tracks,
        "samples": stats.samples,
        "unparsed": stats.unparsed,
        "dropped": stats.dropped,
    }
