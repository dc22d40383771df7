"""Draws the corpora of a protocol and makes datasets of them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.learning.protocol import Protocol
from pipeline.layout import dataset_store


def make_datasets(protocol: Protocol, root: Path, names: Sequence[str] = (), *, workers: int | None = None) -> None:
    """Make the datasets that are missing, all of them or those named; videos are removed once they are in one.

    Args:
        protocol: says what is drawn.
        root: `<root>/datasets/<name>`.
        names: corpora; all where none is named.
        workers: processes; None: one for each core.
    """
    from preprocess.drawing.corpus import draw_corpus
    from preprocess.drawing.layouts import Request
    from preprocess.stage import run_preprocess

    for name in names or protocol.corpora:
        cfg, spec = protocol.corpus_config(name, root), protocol.corpora[name]
        if dataset_store(cfg).exists("dataset.json"):
            continue
        videos = Path(cfg.corpus.path)
        if not videos.exists():
            request = Request(spec.videos, spec.frames, spec.seed)
            draw_corpus(spec.kind, videos, request, size=cfg.preprocess.size, zoom=spec.zoom, workers=workers)
        section = cfg.preprocess.model_copy(update={"workers": workers, "ray_address": "none"})
        run_preprocess(cfg.model_copy(update={"preprocess": section}))
        shutil.rmtree(videos)
