"""What evaluation reads of a published checkpoint."""

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.checkpoints import CONFIG_FILE, MODEL_FILES, Checkpoint, DamagedCheckpoint, fetch_checkpoint
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.storage import NotFound, Store
from train.export import load_model
from train.model import MaskedAutoencoder


@contextmanager
def open_checkpoint(run: Store, checkpoint: Checkpoint) -> Iterator[tuple[MaskedAutoencoder, Config]]:
    """The model of a checkpoint and the configuration it was trained with, fetched, verified and loaded."""
    with _fetched(run, checkpoint, MODEL_FILES) as folder:
        yield load_model(folder)


def trained_config(run: Store, checkpoint: Checkpoint) -> Config:
    """The configuration a checkpoint was trained with, fetched and verified without its weights."""
    with _fetched(run, checkpoint, [CONFIG_FILE]) as folder:
        return load_config(str(folder / CONFIG_FILE))


@contextmanager
def _fetched(run: Store, checkpoint: Checkpoint, names: Collection[str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="marlin-eval-") as folder:
        try:
            fetch_checkpoint(run, checkpoint, Path(folder), names)
        except NotFound as error:  # withdrawn since it was listed, or lost
            raise DamagedCheckpoint(str(error)) from None
        yield Path(folder)
