"""Waiting for what another job makes, without holding a GPU meanwhile."""

import logging
import time
from typing import Literal

from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store, run_store
from pipeline.marks import reached
from pipeline.storage import Store, Unavailable, open_store

Awaited = Literal["dataset", "training"]
_log = logging.getLogger(__name__)


def wait_for(cfg: Config, awaited: Awaited, mark: str | None = None) -> None:
    """Return once the datasets of a configuration are there, or its training is done.

    Looks every `eval.poll_seconds`.

    Args:
        cfg: the run.
        awaited: what is waited for.
        mark: that `marlin preprocess --mark` leaves: with it, datasets that were there before do not count.

    Raises:
        MarlinError: the training, or the preprocessing that leaves the mark, failed.
    """
    told = False
    while True:
        try:
            if _there(cfg, awaited, mark):
                return
        except Unavailable as error:
            _log.warning("%s; looking again in %g s", error, cfg.eval.poll_seconds)
        if not told:
            _log.info("waiting for the %s of run %s", awaited, cfg.run.name)
            told = True
        time.sleep(cfg.eval.poll_seconds)


def _there(cfg: Config, awaited: Awaited, mark: str | None) -> bool:
    if awaited == "training":
        return _trained(run_store(cfg))
    if mark and not reached(run_store(cfg), mark):
        return False
    if cfg.data.source == "synthetic":
        return True
    stores = [open_store(part.dataset) for part in cfg.data.mix] or [dataset_store(cfg)]
    return all(store.exists("dataset.json") for store in stores)


def _trained(run: Store) -> bool:
    from train.status import read_status

    status = read_status(run)
    if status is not None and status.state == "failed":
        raise MarlinError(f"{run.url}: the training failed: {status.reason}")
    return status is not None and status.state == "done"
