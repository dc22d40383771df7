"""A finished dataset of drawn faces, made with the code that makes real ones, without networks or videos."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from synthetic import draw_face

from pipeline.config.schema import Config
from pipeline.storage import Store
from preprocess.corpora import Source
from preprocess.dataset.finish import read_dataset, write_dataset
from preprocess.dataset.manifests import Content, commit, piece_entry, quarantine_entry
from preprocess.dataset.plan import Piece, Plan, Root, Unit, write_plan
from preprocess.dataset.sample import SampleBuilder, Style
from preprocess.dataset.shards import ShardWriter, shard_entries
from preprocess.faces.fingerprint import BITS
from preprocess.faces.runs import Run
from preprocess.quarantine import BadSource

NO_MODELS: Mapping[str, Any] = {"config": {"label_maps": True}, "models": []}
FRAMES = 4


@dataclass(frozen=True)
class Drawn:
    """A source: how many samples it gives, or why it gives none.

    Attributes:
        face: what its frames look like; sources with the same face are copies of each other.
    """

    name: str
    identity: str = ""
    samples: int = 2
    split: str = "train"
    bad: str = ""
    face: int = 0
    labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> Source:
        """As a corpus would list it."""
        return Source(self.name, self.identity or self.name, self.name, labels=self.labels)


def write_drawn(
    store: Store,
    cfg: Config,
    units: Sequence[Sequence[Drawn]],
    *,
    pending: Sequence[Sequence[Drawn]] = (),
    settings: Mapping[str, Any] = NO_MODELS,
    labels: Mapping[str, Any] | None = None,
) -> None:
    """Puts plan, units and dataset.json; `pending` units are planned and not done."""
    root = Root("folder", cfg.corpus.path, False, labels or {})
    plan = Plan(
        tuple(
            Unit(f"{number:06d}", root, tuple(Piece(one.source, None, 1.0) for one in unit))
            for number, unit in enumerate([*units, *pending])
        )
    )
    done = Plan(plan.units[: len(units)])
    for unit, drawn in zip(done.units, units, strict=True):
        write_unit(store, cfg, unit, drawn)
    write_dataset(cfg, store, done, settings, findings=(), before=read_dataset(store))
    write_plan(store, plan, settings, None)


def write_unit(store: Store, cfg: Config, unit: Unit, drawn: Sequence[Drawn]) -> None:
    """Commits one unit, as a worker does."""
    content = Content()
    with TemporaryDirectory() as folder:
        writer = ShardWriter(Path(folder))
        for number, (piece, one) in enumerate(zip(unit.pieces, drawn, strict=True)):
            if one.bad:
                content.quarantined.append(quarantine_entry(piece, BadSource(one.bad, "as drawn")))  # type: ignore[arg-type]
                continue
            for place in range(one.samples):
                builder = _sample(cfg, one, f"{unit.name}-s{number:03d}", place * FRAMES)
                shard, parts = writer.add(builder.head["key"], builder.parts())
                content.samples.append(_entry(builder, shard, parts, cfg))
            content.sources.append(_source_entry(one))
        paths = writer.close()
        entries = shard_entries(unit.name, paths)
        for entry, path in zip(entries, paths, strict=True):
            store.write_file(entry.name, path)
    commit(store, unit, entries, content)


def _sample(cfg: Config, one: Drawn, key: str, start: int) -> SampleBuilder:
    section = cfg.preprocess
    head = {
        "key": f"{key}-t00-{start:06d}",
        "source": one.name,
        "identity": one.source.identity,
        "span": None,
        "track": 0,
        "fps": 25.0,
        "size": section.size,
        "margin": section.margin,
        "detector": section.detector,
        "parser": "drawn",
        "models": {},
        "labels": dict(one.labels),
        "phash": [np.random.default_rng((one.face, start)).bytes(BITS // 8).hex()],
    }
    builder = SampleBuilder(Run(start, FRAMES, one.split), Style(section.size, section.patch, 90, True), head)
    for frame in range(start, start + FRAMES):
        image, regions = draw_face(one.face, frame, section.size)
        builder.add(image, regions, np.array([100.0, 100.0, 40.0 + one.face]), frame / 25)
    return builder


def _entry(builder: SampleBuilder, shard: int, parts: Mapping[str, tuple[int, int]], cfg: Config) -> dict[str, Any]:
    head, run = builder.head, builder.run
    known = ("key", "source", "identity", "track", "phash")
    return {
        **{name: head[name] for name in known},
        "shard": shard,
        "frames": run.frames,
        "start": run.start,
        "split": run.split,
        "size": cfg.preprocess.size,
        "grid": cfg.preprocess.size // cfg.preprocess.patch,
        "parts": {name: list(place) for name, place in parts.items()},
    }


def _source_entry(one: Drawn) -> dict[str, Any]:
    return {
        **piece_entry(one.name, None),
        "identity": one.source.identity,
        "labels": dict(one.labels),
        "sha256": f"{one.face:064x}",
        "seconds": one.samples * FRAMES / 25,
        "fps": 25.0,
        "frames": one.samples * FRAMES,
        "tracks": 1,
        "samples": one.samples,
        "unparsed": 0,
        "dropped": {"short": 1},
    }


def drawn_section(make_config: Callable[..., Config], corpus: Path | str, root: Path | str) -> Config:
    """The configuration that fits drawn datasets."""
    return make_config(corpus, root, size=32, patch=8, clip_frames=FRAMES, min_frames=FRAMES)


def everything(store: Store) -> dict[str, bytes]:
    """All objects of a dataset."""
    return {item.key: store.read(item.key) for item in store.list()}


def written(folder: Path, cfg: Config) -> str:
    """Path of a configuration as a file, for the command line."""
    path = folder / "config.yaml"
    path.write_text(cfg.model_dump_json())
    return str(path)
