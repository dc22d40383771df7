"""Draws a corpus into a folder: whole or not at all."""

import hashlib
import json
import os
import shutil
import signal
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from pipeline.errors import MarlinError, UsageError
from pipeline.storage.atomic import os_error, sync_folder
from pipeline.storage.base import TEMP_PREFIX
from pipeline.storage.manifest import to_json
from preprocess.drawing import RECORD, VERSION
from preprocess.drawing.container import write_video
from preprocess.drawing.film import film
from preprocess.drawing.layouts import Corpus, Request, plan_corpus
from preprocess.drawing.roles import Role, take_of, voice_of

NOTE = (
    "These are drawings: for tests, and for measuring what a model learns from data with known answers. "
    "They are no part of the corpus whose layout they have, and stand in for no published number."
)
SMALLEST, LARGEST = 64, 1024
"""Bounds of a picture's side in pixels."""
NEAREST = 2.0
"""Largest zoom: beyond it no face is whole."""
SHORTEST = 32
"""Fewest frames of a video: in fewer the first word may not be over."""


@dataclass(frozen=True)
class Written:
    """What was drawn, and the overrides by which `marlin preprocess` reads it."""

    videos: int
    people: int
    settings: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    file: Path
    role: Role
    frames: int
    size: int
    zoom: float
    crf: int


def draw_corpus(
    kind: str,
    out: Path,
    request: Request,
    *,
    size: int,
    zoom: float = 1.0,
    workers: int | None = None,
    progress: bool = True,
) -> Written:
    """Draws a corpus; the same arguments give the same labels, and the same pictures before they are encoded.

    Args:
        kind: layout, one of `layouts.LAYOUTS`.
        out: folder to make.
        request: how much, and the seed.
        size: side of the pictures in pixels, even.
        zoom: 1 shows head and shoulders, 1.5 what is cropped around a detected face.
        workers: processes; None is one for each processor.
        progress: show a bar.

    Raises:
        UsageError: the folder exists, or what is asked for can't be drawn.
        MarlinError: it can't be written.
    """
    if size % 2 or not SMALLEST <= size <= LARGEST:
        raise UsageError(f"--size {size}: give an even number from {SMALLEST} to {LARGEST}")
    if not 1 <= zoom <= NEAREST:
        raise UsageError(f"--zoom {zoom:g}: give a number from 1 to {NEAREST:g}")
    if request.frames < SHORTEST:
        raise UsageError(f"--frames {request.frames}: give {SHORTEST} or more")
    corpus = plan_corpus(kind, request)
    try:
        if out.exists():
            raise UsageError(f"{out} exists: give a new folder, or remove it")
        with _whole_folder(out) as folder:
            for path, text in {**corpus.files, RECORD: _record(kind, request, size, zoom, corpus)}.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text, encoding="utf-8")
            jobs = [
                _Job(folder / path, role, request.frames, size, zoom, corpus.crf) for path, role in corpus.roles.items()
            ]
            drawn = _drawn(jobs, workers or len(os.sched_getaffinity(0)))
            for _ in tqdm(drawn, desc="draw", unit="video", total=len(jobs), disable=not progress):
                pass
    except OSError as error:
        raise os_error(out, error) from None
    except BrokenExecutor:
        raise MarlinError(f"{out}: a process that draws was killed, perhaps out of memory: lower --workers") from None
    # As YAML: a folder may be named like a number.
    path = str(out) if yaml.safe_load(str(out)) == str(out) else json.dumps(str(out))
    place = f"corpus.kind={kind}", f"corpus.path={path}"
    backends = "preprocess.detector=none", "preprocess.parser=given"
    return Written(len(corpus.roles), corpus.people, (*place, *backends, *corpus.settings))


def draw_video(file: Path, role: Role, frames: int, size: int, crf: int, *, zoom: float = 1.0) -> None:
    """Draws one video with its label maps and its sound."""
    write_video(file, film(take_of(role, frames), size, zoom), size, voice_of(role, frames), crf)


def _draw(job: _Job) -> None:
    draw_video(job.file, job.role, job.frames, job.size, job.crf, zoom=job.zoom)


def _drawn(jobs: list[_Job], workers: int) -> Iterator[None]:
    if workers == 1:
        yield from map(_draw, jobs)
        return
    # An interrupt is for the process that waits: it lets go of the others.
    quiet = signal.signal, (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(workers, get_context("spawn"), *quiet) as pool:
        try:
            yield from pool.map(_draw, jobs)
        finally:
            pool.shutdown(cancel_futures=True)


def _record(kind: str, request: Request, size: int, zoom: float, corpus: Corpus) -> str:
    arguments: Mapping[str, Any] = {
        "generator": "marlin samples draw",
        "version": VERSION,
        "kind": kind,
        "videos": request.videos,
        "frames": request.frames,
        "size": size,
        "zoom": zoom,
        "seed": request.seed,
    }
    content = {
        **arguments,
        "sha256": hashlib.sha256(to_json(arguments)).hexdigest(),
        "counts": {"videos": len(corpus.roles), "people": corpus.people, "splits": dict(corpus.splits)},
        "note": NOTE,
    }
    return to_json(content).decode()


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that gets its name at the end, and is removed on any failure."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent / f"{TEMP_PREFIX}{uuid.uuid4().hex}"
    try:
        folder.mkdir()
        yield folder
        folder.rename(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
