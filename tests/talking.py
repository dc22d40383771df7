"""A small dataset of drawn talking faces with their sound, as preprocessing would store them, without its clusters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipeline.config.schema import Config
from pipeline.storage import Store
from preprocess.arrays import Image
from preprocess.corpora import Source
from preprocess.dataset.finish import read_dataset, write_dataset
from preprocess.dataset.manifests import Content, commit, piece_entry
from preprocess.dataset.plan import Piece, Plan, Root, Unit, write_plan
from preprocess.dataset.sample import SampleBuilder, Style
from preprocess.dataset.shards import ShardWriter, shard_entries
from preprocess.decode.audio import RATE, encode_flac
from preprocess.drawing import FPS
from preprocess.drawing.film import film
from preprocess.drawing.layouts import Request, plan_corpus, split_of
from preprocess.drawing.roles import Role, take_of, voice_of
from preprocess.drawing.speech import Sound
from preprocess.faces.runs import Run

SAMPLE = 64
"""Frames of a sample."""


@dataclass(frozen=True)
class Talk:
    """A drawn video."""

    name: str
    identity: str
    split: str
    role: Role


def talks(videos: int, frames: int, seed: int = 0) -> list[Talk]:
    """Videos of a drawn LRS2, about four of each person."""
    roles = plan_corpus("lrs2", Request(videos, frames, seed)).roles
    people = [path.split("/")[-2] for path in roles]
    return [
        Talk(path, person, split_of(int(person)), role)
        for (path, role), person in zip(roles.items(), people, strict=True)
    ]


def pictures(talk: Talk, frames: int, size: int) -> tuple[Image, Image]:
    """Frames (F, S, S, 3) and label maps (F, S, S)."""
    shown = list(film(take_of(talk.role, frames), size))
    return np.stack([rgb for rgb, _ in shown]), np.stack([labels for _, labels in shown])


def sound(talk: Talk, frames: int) -> Sound:
    """What is heard meanwhile."""
    return voice_of(talk.role, frames)


def write_talks(
    store: Store, cfg: Config, videos: Sequence[Talk], frames: int, *, silent: Sequence[str] = (), fps: float = FPS
) -> None:
    """Write a dataset of some videos, one a unit, at the configuration's size.

    Args:
        store: where.
        cfg: sizes.
        videos: what.
        frames: of each.
        silent: names of those whose sound is left out.
        fps: that the manifests claim.
    """
    root = Root("lrs2", "drawn", True, {})
    sources = [Source(talk.name, talk.identity, talk.name) for talk in videos]
    plan = Plan(tuple(Unit(f"{n:06d}", root, (Piece(source, None, 1.0),)) for n, source in enumerate(sources)))
    for unit, talk in zip(plan.units, videos, strict=True):
        _write_unit(store, cfg, unit, talk, (frames, fps, talk.name in silent))
    settings: Mapping[str, Any] = {"config": cfg.preprocess.model_dump(mode="json"), "models": []}
    write_dataset(cfg, store, plan, settings, findings=(), before=read_dataset(store))
    write_plan(store, plan, settings, None)


def _write_unit(store: Store, cfg: Config, unit: Unit, talk: Talk, told: tuple[int, float, bool]) -> None:
    frames, fps, silent = told
    shown, labels = pictures(talk, frames, cfg.preprocess.size)
    heard = sound(talk, frames)
    content = Content()
    with TemporaryDirectory() as folder:
        writer = ShardWriter(Path(folder))
        for start in range(0, frames, SAMPLE):
            count = min(SAMPLE, frames - start)
            builder = _builder(cfg, unit.name, talk, Run(start, count, talk.split))
            for index in range(start, start + count):
                builder.add(shown[index], labels[index], np.array([16.0, 16.0, 32.0]), index / FPS)
            said = heard[round(start * RATE / FPS) : round((start + count) * RATE / FPS)]
            shard, parts = writer.add(builder.head["key"], builder.parts(None if silent else encode_flac(said)))
            content.samples.append(_entry(builder, cfg, shard, parts))
        content.sources.append(_source(talk, frames, fps, len(content.samples)))
        paths = writer.close()
        entries = shard_entries(unit.name, paths)
        for entry, path in zip(entries, paths, strict=True):
            store.write_file(entry.name, path)
    commit(store, unit, entries, content)


def _builder(cfg: Config, unit: str, talk: Talk, run: Run) -> SampleBuilder:
    section = cfg.preprocess
    head = {
        "key": f"{unit}-t00-{run.start:06d}",
        "source": talk.name,
        "identity": talk.identity,
        "track": 0,
        "fps": float(FPS),
        "phash": [""],
    }
    return SampleBuilder(run, Style(section.size, section.patch, 95, True), head)


def _entry(builder: SampleBuilder, cfg: Config, shard: int, parts: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    head, run = builder.head, builder.run
    return {
        **{name: head[name] for name in ("key", "source", "identity", "track", "phash")},
        "shard": shard,
        "frames": run.frames,
        "start": run.start,
        "split": run.split,
        "size": cfg.preprocess.size,
        "grid": cfg.preprocess.size // cfg.preprocess.patch,
        "parts": {name: list(place) for name, place in parts.items()},
    }


def _source(talk: Talk, frames: int, fps: float, samples: int) -> dict[str, Any]:
    return {
        **piece_entry(talk.name, None),
        "identity": talk.identity,
        "labels": {},
        "sha256": "0" * 64,
        "seconds": frames / FPS,
        "fps": fps,
        "frames": frames,
        "tracks": 1,
        "samples": samples,
        "unparsed": 0,
        "dropped": {},
    }
