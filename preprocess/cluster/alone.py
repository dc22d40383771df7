"""Units without Ray, in processes of this machine. What kills a process ends the stage; with Ray it is quarantined."""

import logging
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import get_context
from os import sched_getaffinity
from typing import Any

from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store
from preprocess.cluster.job import Job
from preprocess.cluster.scratch import enter_scratch, sweep_scratch
from preprocess.corpora import open_media, open_places
from preprocess.dataset.plan import Unit
from preprocess.models import load_networks, model_files
from preprocess.quarantine import BadSource
from preprocess.unit import UnitProcessor

_processor: UnitProcessor | None = None  # of a worker process


def process_units_here(cfg: Config, units: list[Unit]) -> Iterator[dict[str, Any]]:
    """Processes units, one at a time in each of `preprocess.workers` processes; yields manifests in their order.

    Raises:
        MarlinError: storage or a model file fails, or a process died.
    """
    media = lru_cache(maxsize=8)(open_media)
    located = [Job(unit, media).located() for unit in units]
    workers = min(len(units), cfg.preprocess.workers or len(sched_getaffinity(0)))
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (cfg,)) as pool:
            try:
                yield from pool.map(_process, located)
            finally:
                pool.shutdown(cancel_futures=True)
    except BrokenProcessPool:
        raise MarlinError(
            "a process of preprocessing died, perhaps out of memory: the same command goes on where it was; "
            "with preprocess.ray_address=local the source that does it is found and quarantined"
        ) from None
    finally:
        sweep_scratch()


def _begin(cfg: Config) -> None:
    global _processor  # noqa: PLW0603  # made once for all units of the process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the process that waits
    logging.disable(logging.WARNING)  # warnings on single sources are in the manifest
    enter_scratch()
    networks = load_networks(cfg.preprocess, model_files(cfg.preprocess)) if cfg.preprocess.uses_networks else None
    _processor = UnitProcessor(cfg.preprocess, dataset_store(cfg), networks, lru_cache(maxsize=8)(open_places))


def _process(located: tuple[Unit, dict[int, BadSource]]) -> dict[str, Any]:
    if _processor is None:
        raise RuntimeError("this is no worker process")
    return _processor.process(*located)
