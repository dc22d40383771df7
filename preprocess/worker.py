"""The Ray side: a cluster to work on, and actors that each hold the networks and process units."""

import logging
import os
import secrets
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from pipeline.config.schema import Config, PreprocessConfig
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store
from pipeline.storage import Store
from preprocess.corpora import open_corpus
from preprocess.models import load_networks, model_files
from preprocess.plan import Unit
from preprocess.quarantine import BadSource
from preprocess.unit import Content, UnitProcessor, commit, quarantine_entry

# Attempts of a unit whose worker process died (killed, out of memory, crashed in a decoder, node gone).
RETRIES = 3


class _Worker:
    """Actor that processes one unit at a time."""

    def __init__(self, cfg: Config) -> None:
        # Warnings on single sources are in the manifest; their lines would tear the driver's progress bar.
        logging.disable(logging.WARNING)
        self._processor = make_processor(cfg)

    def process(self, unit: Unit) -> dict[str, Any]:
        return self._processor.process(unit)


def make_processor(cfg: Config) -> UnitProcessor:
    """Loads everything that units need, in this process."""
    networks = load_networks(cfg.preprocess, model_files(cfg.preprocess))
    return UnitProcessor(cfg.preprocess, open_corpus(cfg.corpus), dataset_store(cfg), networks)


@contextmanager
def cluster(cfg: PreprocessConfig) -> Iterator[int]:
    """Joins or starts a Ray cluster for the time of the context; gives the number of workers to run.

    Raises:
        MarlinError: the cluster can't be joined or started.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options: dict[str, Any] = {"address": cfg.ray_address}
    if cfg.ray_address == "local":
        # A secret of this cluster alone: otherwise Ray writes one into the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
        options |= {
            "num_cpus": max(cfg.workers or 0, os.cpu_count() or 1),
            "object_store_memory": cfg.object_store_mb << 20,
            "include_dashboard": False,
        }
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, configure_logging=False, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise MarlinError(f"preprocess.ray_address={cfg.ray_address}: no Ray cluster: {error}") from error
    # Ray puts a handler of its own in place that leaves with the signal's number; ours ends in an orderly stop.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield cfg.workers or max(1, int(resources.get("CPU", 1)))
    finally:
        ray.shutdown()


def process_units(cfg: Config, store: Store, units: list[Unit], workers: int) -> Iterator[dict[str, Any]]:
    """Processes units on actors, one unit in flight an actor; yields manifests as they are committed.

    A unit that kills its worker at every attempt is committed with its sources in quarantine.

    Raises:
        MarlinError: storage or a model file fails.
    """
    remote = ray.remote(num_cpus=1, max_restarts=RETRIES, max_task_retries=RETRIES)(_Worker)
    waiting = deque(units)
    flying: dict[Any, _Flight] = {}

    def launch(actor: Any) -> None:
        unit = waiting.popleft()
        flying[actor.process.remote(unit)] = _Flight(actor, unit)

    for _ in range(min(workers, len(units))):
        launch(remote.remote(cfg))
    while flying:
        [ready], _ = ray.wait(list(flying), num_returns=1)
        flight = flying.pop(ready)
        actor = flight.actor
        try:
            manifest = ray.get(ready)
        except RayActorError as error:
            manifest = _give_up(store, flight.unit, error)
            actor = remote.remote(cfg) if waiting else None
        except RayTaskError as error:
            raise _cause(error, flight.unit) from error
        yield manifest
        if waiting:
            launch(actor)


@dataclass(frozen=True)
class _Flight:
    actor: Any
    unit: Unit


def _give_up(store: Store, unit: Unit, error: RayActorError) -> dict[str, Any]:
    if "creation task" in str(error) or isinstance(getattr(error, "cause", None), MarlinError):
        raise MarlinError(f"preprocessing workers can't start: {_last_line(error)}") from error
    bad = BadSource("worker-died", f"the worker process died at each of {RETRIES + 1} attempts")
    return commit(store, unit, [], Content(quarantined=[quarantine_entry(piece, bad) for piece in unit.pieces]))


def _cause(error: RayTaskError, unit: Unit) -> MarlinError:
    cause = getattr(error, "cause", None)
    if isinstance(cause, MarlinError):
        return cause
    return MarlinError(f"unit {unit.name} failed: {_last_line(error)}")


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
