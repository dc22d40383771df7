"""Ways to learn the answer to a question from labelled videos.

Shapes: V videos, D width of a feature, C outputs.
"""

import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file
from tqdm import tqdm

from eval.features import Embedder, WindowSpec, extract, model_embedder
from eval.finetune import RESULT, WEIGHTS, Finetuning, Labelled
from eval.heads import Head
from eval.probe import Examples, answers, linear_probe, nearest_answers
from eval.questions import Answered, Video
from eval.ranks import default_processes, run_ranks
from eval.scores import Probabilities
from eval.tasks.context import TaskContext
from pipeline.config.schema import Config
from pipeline.storage import AlreadyExists, NotFound, Store

Rows = NDArray[np.int64]

_VIDEOS_AT_ONCE = 64  # so that windows of tens of thousands of videos need not be held


@dataclass(frozen=True)
class Attempt:
    """What is learned from.

    Attributes:
        found: videos and their answers.
        train: rows to learn from.
        held_out: rows to choose the best epoch on; none keeps the last one.
        scored: rows to answer in the end.
        share: of the training videos that is learned from.
        seed: of everything random.
    """

    found: Answered
    train: Rows
    held_out: Rows
    scored: Rows
    share: float
    seed: int


@dataclass(frozen=True)
class Learned:
    """What came of it.

    Attributes:
        found_VC: probabilities for the videos that are scored.
        details: what else a result tells of it.
        head: linear layer on features of the checkpoint, where that is what was learned.
    """

    found_VC: Probabilities
    details: Mapping[str, Any] = field(default_factory=dict)
    head: Head | None = None


@dataclass(frozen=True)
class Protocol:
    """A way to learn, and the keys of `eval` that it reads, by section."""

    learn: Callable[[TaskContext, Attempt], Learned]
    settings: Mapping[str, set[str]]


def learn_linear(context: TaskContext, attempt: Attempt) -> Learned:
    """A linear layer on the mean feature of each video."""
    question, cfg = attempt.found.question, context.cfg.eval.probe
    train, held_out, scored = _examples(context, attempt)
    probe = linear_probe(question, train, held_out, cfg, attempt.seed, progress=context.progress)
    head = Head(question.outputs, probe.layer.weight.detach(), probe.layer.bias.detach())
    return Learned(answers(question, probe.layer, scored.features_VD), {"epoch": probe.epoch}, head)


def learn_nearest(context: TaskContext, attempt: Attempt) -> Learned:
    """The neighbours of each video's mean feature."""
    train, _, scored = _examples(context, attempt)
    return Learned(nearest_answers(train, scored.features_VD, context.cfg.eval.probe.neighbors))


def learn_finetuned(context: TaskContext, attempt: Attempt) -> Learned:
    """Encoder and linear layer."""
    return _learn_from_clips(context, attempt, attentive=False)


def learn_attentive(context: TaskContext, attempt: Attempt) -> Learned:
    """An attentive pool over the tokens of the frozen encoder, and a linear layer."""
    return _learn_from_clips(context, attempt, attentive=True)


_CLIPS = {"finetune": {"epochs", "batch", "lr", "precision"}}

PROTOCOLS: Mapping[str, Protocol] = {
    "linear": Protocol(learn_linear, {"probe": {"epochs", "batch", "lr"}}),
    "knn": Protocol(learn_nearest, {"probe": {"neighbors"}}),
    "attentive": Protocol(learn_attentive, _CLIPS),
    "finetune": Protocol(learn_finetuned, _CLIPS),
}


def window_spec(cfg: Config) -> WindowSpec:
    """The sliding windows of a configuration."""
    return WindowSpec(cfg.data.frames, cfg.data.stride, cfg.eval.window_stride, cfg.eval.batch)


def _examples(context: TaskContext, attempt: Attempt) -> tuple[Examples, Examples, Examples]:
    features_VD, truth_VC = _features(context, attempt.found.videos), attempt.found.truth_VC
    rows = (attempt.train, attempt.held_out, attempt.scored)
    train, held_out, scored = (Examples(features_VD[part], truth_VC[part]) for part in rows)
    return train, held_out, scored


def _features(context: TaskContext, videos: Sequence[Video]) -> NDArray[np.float32]:
    """Mean feature over all windows of each video (V, D); kept for the next task that asks for them."""
    cache, url = context.features, context.store.url
    missing = [video for video in videos if (url, video.name, video.split) not in cache]
    if missing:
        embed = model_embedder(context.model)
        with tqdm(total=len(missing), desc="features", unit="video", disable=not context.progress) as bar:
            for first in range(0, len(missing), _VIDEOS_AT_ONCE):
                part = missing[first : first + _VIDEOS_AT_ONCE]
                found = mean_features(context.store, part, embed, window_spec(context.cfg))
                for video, mean_D in zip(part, found, strict=True):
                    cache[url, video.name, video.split] = mean_D
                bar.update(len(part))
    return np.stack([cache[url, video.name, video.split] for video in videos])


def mean_features(
    store: Store, videos: Sequence[Video], embed: Embedder, spec: WindowSpec
) -> list[NDArray[np.float32]]:
    """The mean feature (D) over all windows of each video."""
    sequences = [sequence for video in videos for sequence in video.sequences]
    found_WD = extract(store, sequences, {"": embed}, spec, progress=False).features[""]
    windows = [sum(len(spec.plan(sequence.frames)) for sequence in video.sequences) for video in videos]
    return [part_WD.mean(0) for part_WD in np.split(found_WD, np.cumsum(windows)[:-1])]


def _learn_from_clips(context: TaskContext, attempt: Attempt, *, attentive: bool) -> Learned:
    """Hours of work: the answers are kept until the task's result is published, for a job that goes on after a kill."""
    key = f"{attempt.share:g}-{attempt.seed}.npz"
    try:
        kept = context.unfinished.read(key)
    except NotFound:
        kept = _finetuned(context, attempt, attentive=attentive)
        try:
            context.unfinished.create(key, kept)
        except AlreadyExists:
            kept = context.unfinished.read(key)
    with np.load(io.BytesIO(kept), allow_pickle=False) as result:
        return Learned(result["found_VC"], {"epoch": int(result["epoch"])})


def _finetuned(context: TaskContext, attempt: Attempt, *, attentive: bool) -> bytes:
    found, cfg = attempt.found, context.cfg.eval.finetune

    def labelled(rows: Rows) -> Labelled:
        return Labelled(tuple(found.videos[row] for row in rows), found.truth_VC[rows])

    with tempfile.TemporaryDirectory(prefix="marlin-finetune-") as name:
        folder = Path(name)
        save_file(context.model.float().cpu().state_dict(), folder / WEIGHTS)
        job = Finetuning(
            question=found.question,
            cfg=context.cfg,
            attentive=attentive,
            train=labelled(attempt.train),
            held_out=labelled(attempt.held_out),
            scored=labelled(attempt.scored).videos,
            dataset=context.store.url,
            spec=window_spec(context.cfg),
            seed=attempt.seed,
            progress=context.progress,
        )
        run_ranks(job, cfg.processes or default_processes(), folder)
        return (folder / RESULT).read_bytes()
