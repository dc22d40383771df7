"""What every task is given, and what it gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eval.heads import Head
from pipeline.config.evaluation import EvalConfig
from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.storage import Store
from train.model import MaskedAutoencoder

FeatureCache = dict[tuple[str, str, str], NDArray[np.float32]]
"""Features (D) by dataset, video and split."""


@dataclass(frozen=True)
class TaskContext:
    """A loaded checkpoint and the data to measure it on.

    ``cfg`` describes the model as it was trained; its ``eval`` section is the one asked for now. ``unfinished`` is a
    place for parts of a long task, which is emptied when its result is published. ``features`` are kept for the tasks
    that follow on the same checkpoint.
    """

    cfg: Config
    model: MaskedAutoencoder
    dataset: Dataset
    store: Store
    unfinished: Store
    progress: bool = True
    features: FeatureCache = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What a task found.

    Attributes:
        result: JSON-ready, its numbers under "metrics".
        head: the layer it trained on the checkpoint's features, if it is worth keeping.
        weights: other networks it trained, as safetensors files by name; the result names them under "weights".
    """

    result: Mapping[str, Any]
    head: Head | None = None
    weights: Mapping[str, bytes] = field(default_factory=dict)


class Task(Protocol):
    """Something to measure on a checkpoint."""

    def store(self, cfg: Config) -> Store:
        """The dataset it is measured on."""
        ...

    def settings(self, cfg: EvalConfig) -> dict[str, Any]:
        """The part of the configuration that its result depends on."""
        ...

    def check(self, cfg: Config, dataset: Dataset) -> None:
        """Whether the dataset can serve it.

        Raises:
            MarlinError: it can't; the message names the setting to change.
        """
        ...

    def run(self, context: TaskContext) -> Measured:
        """Measure."""
        ...
