"""The runs that a report is asked for, by their folders, as configurations."""

import json
import re
from collections.abc import Sequence

from eval.loading import trained_config
from eval.results import pick_checkpoint
from pipeline.checkpoints import list_checkpoints
from pipeline.config.load import override
from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.storage import open_store


def config_of_run(url: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration that a run's newest checkpoint was trained with, placed where the run lies now.

    Args:
        url: the run's folder, ``<storage.root>/runs/<run.name>``; both are taken from it.
        overrides: ``section.key=value`` strings, such as the datasets of the evaluation.

    Raises:
        UsageError: this is not the folder of a run, or an override is wrong.
        MarlinError: the run has no published checkpoint.
    """
    run = open_store(url)
    place = re.fullmatch(r"(.+)/runs/([^/]+)", run.url)
    if place is None:
        raise UsageError(f"{url} is not the folder of a run, <storage.root>/runs/<run.name>: give one, or -c CONFIG")
    trained = trained_config(run, pick_checkpoint(run, list_checkpoints(run), None))
    root, name = (json.dumps(part, ensure_ascii=False) for part in place.groups())
    return override(trained, [*overrides, f"storage.root={root}", f"run.name={name}"])
