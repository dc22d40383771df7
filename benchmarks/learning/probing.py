"""Probes of frozen features, of networks and of baselines, on held-out people.

Shapes: V videos, D width of a feature.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning import baselines
from benchmarks.learning.places import over_time, probe_places
from eval.features import Embedder, model_embedder
from eval.questions import TOPICS, answered, videos_of
from eval.tasks.context import FeatureCache, TaskContext
from eval.tasks.labelled import LabelledTask
from eval.tasks.protocols import mean_features, window_spec
from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.storage import open_store
from train.model import MaskedAutoencoder

NO_NETWORK: Mapping[str, Embedder] = {"pixels": baselines.pixels, "statistics": baselines.statistics}
"""Baselines whose features no network makes."""

_PLACES_OF: Mapping[str, Embedder] = {"pixels": baselines.moving_pixels, "statistics": baselines.statistics}

Found = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Subject:
    """What is probed.

    Attributes:
        cfg: settings of `eval`, and of the clips.
        variant: its name tells baselines without a network.
        model: of the others.
        dataset: the labelled one.
        questions: those of `QUESTIONS` that it answers.
    """

    cfg: Config
    variant: str
    model: MaskedAutoencoder
    dataset: Dataset
    questions: Sequence[str]


def probe(subject: Subject, probes: Sequence[str]) -> Found:
    """Scores of every task on one dataset, by `<question>-<protocol>` and share of the labels.

    A network that is given all tokens, as the attentive probe is, has no counterpart among the baselines without one.
    """
    pooled = [name for name in probes if name not in ("places", "attentive")]
    tokens = [name for name in probes if name == "attentive" and subject.variant not in NO_NETWORK]
    return {
        **(_as_evaluated(subject, [*pooled, *tokens]) if pooled or tokens else {}),
        **(_by_place(subject) if "places" in probes else {}),
    }


def _as_evaluated(subject: Subject, names: Sequence[str]) -> Found:
    """What `marlin eval` does, with standardised features of every variant.

    Mean and deviation are those of the videos that are learned from: what a network scales, or leaves unscaled, shall
    not decide.
    """
    cfg, dataset = subject.cfg, subject.dataset
    features_VD = _features(cfg, NO_NETWORK.get(subject.variant) or model_embedder(subject.model), dataset)
    videos = videos_of(dataset)
    train_VD = features_VD[[video.split == "train" for video in videos]]
    features_VD = (features_VD - train_VD.mean(0)) / (train_VD.std(0) + 1e-6)
    store = open_store(dataset.url)
    cache: FeatureCache = {
        (store.url, video.name, video.split): feature_D for video, feature_D in zip(videos, features_VD, strict=True)
    }
    few = cfg.model_copy(update={"eval": cfg.eval.model_copy(update={"label_shares": (1.0,), "repeats": 1})})
    plan = {"linear": cfg, "knn": few, "attentive": few}
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix="marlin-learning-") as folder:
        for question in subject.questions:
            for name in names:
                task, unfinished = LabelledTask(question, name), open_store(folder).at(f"{question}-{name}")
                told = task.run(TaskContext(plan[name], subject.model, dataset, store, unfinished, False, cache)).result
                found[f"{question}-{name}"] = {
                    "shares": {f"{share['share']:g}": share["mean"] for share in told["shares"]},
                    "majority_accuracy": told["metrics"]["majority_accuracy"],
                    "videos": told["videos"],
                    "shared_people": told["shared_people"],
                    "dataset": dataset.identity,
                }
                if name == "linear":
                    labels = told["per_label"].items()
                    found[f"{question}-{name}"]["auc"] = {k: round(v["auc"], 4) for k, v in labels if "auc" in v}
    return found


def _by_place(subject: Subject) -> Found:
    """Of all labels (`places`)."""
    cfg, dataset, model = subject.cfg, subject.dataset, subject.model
    embed = _PLACES_OF.get(subject.variant) or over_time(model_embedder(model, keep_seq=True), model.geometry.tubelets)
    features_VD = _features(cfg, embed, dataset)
    rows = {(video.name, video.split): row for row, video in enumerate(videos_of(dataset))}
    found: Found = {}
    for question in subject.questions:
        asked = answered(dataset, TOPICS[question].rule(dataset, cfg.eval), cfg.eval)
        chosen = [rows[video.name, video.split] for video in asked.videos]
        scores = probe_places(asked, features_VD[chosen])
        found[f"{question}-places"] = {"shares": {"1": scores}, "dataset": dataset.identity}
    return found


def _features(cfg: Config, embed: Embedder, dataset: Dataset) -> NDArray[np.float32]:
    """Mean feature of every video (V, D)."""
    return np.stack(mean_features(open_store(dataset.url), videos_of(dataset), embed, window_spec(cfg)))
