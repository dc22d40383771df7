"""What every task is given."""

from dataclasses import dataclass

from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.storage import Store
from train.model import MaskedAutoencoder


@dataclass(frozen=True)
class TaskContext:
    """A loaded checkpoint and the data to measure it on.

    ``cfg`` describes the model as it was trained; its ``eval`` section is the one asked for now.
    """

    cfg: Config
    model: MaskedAutoencoder
    dataset: Dataset
    store: Store
    progress: bool = True
