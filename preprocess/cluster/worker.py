"""The Ray side: a cluster to work on, and actors that each hold the networks and process units."""

import gc
import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import ray
import ray._private.utils as ray_utils
from ray.exceptions import ActorUnschedulableError, RayError, RayTaskError, RuntimeEnvSetupError

from pipeline.config.schema import Config, PreprocessConfig
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store
from pipeline.storage import Store, open_store
from preprocess.cluster.job import Job
from preprocess.cluster.remote import STALLED_SECONDS, NetworkDied, NetworkLine, connect, last_line, network_lines
from preprocess.cluster.scratch import enter_scratch, sweep_scratch
from preprocess.corpora import open_media, open_places
from preprocess.dataset.plan import Unit
from preprocess.decode.stall import limit_steps
from preprocess.models import Networks, load_networks, model_files
from preprocess.quarantine import BadSource
from preprocess.unit import UnitProcessor

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
CONNECT_SECONDS = 10


class _Worker:
    """Actor that processes one unit at a time."""

    def __init__(self, cfg: Config, line: NetworkLine | None) -> None:
        # Warnings on single sources are in the manifest; their lines would tear the driver's progress bar.
        logging.disable(logging.WARNING)
        enter_scratch()
        limit_steps(STALLED_SECONDS)
        networks = _networks(cfg.preprocess, line)
        self._processor = UnitProcessor(cfg.preprocess, dataset_store(cfg), networks, lru_cache(maxsize=8)(open_places))
        # What is loaded by now stays: the collector need not go through it again and again.
        gc.freeze()

    def process(self, unit: Unit, bad: Mapping[int, BadSource]) -> dict[str, Any]:
        return self._processor.process(unit, bad)

    def rehearse(self, unit: Unit, number: int) -> None:
        """Does the work on one source of a unit and throws the result away: to see whether it kills the process."""
        with tempfile.TemporaryDirectory() as folder:
            alone = replace(unit, pieces=(unit.pieces[number],))
            replace(self._processor, store=open_store(folder)).process(alone, {})


def _networks(cfg: PreprocessConfig, line: NetworkLine | None) -> Networks | None:
    if line is not None:
        return connect(line, cfg)
    return load_networks(cfg, model_files(cfg)) if cfg.uses_networks else None


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
            "num_cpus": max((cfg.workers or 1) + _network_cpus(cfg), os.cpu_count() or 1),
            "object_store_memory": cfg.object_store_mb << 20,
            "include_dashboard": False,
        }
    else:
        _check_reachable(cfg.ray_address)
    try:
        _start_ray(options)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield cfg.workers or max(1, int(resources.get("CPU", 1)) - _network_cpus(cfg))
    finally:
        ray.shutdown()
        sweep_scratch()


def _start_ray(options: Mapping[str, Any]) -> None:
    with _signals_held():
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, configure_logging=False, **options)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise MarlinError(f"preprocess.ray_address={options['address']}: no Ray cluster: {error}") from error


@contextmanager
def _signals_held() -> Iterator[None]:
    """Stop signals wait for the end of the context: an exception in the middle of Ray's start would tear it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {number: signal.signal(number, lambda sent, _: held.append(sent)) for number in _STOPS}
    # Ray would put a handler of its own in place that leaves with the signal's number; ours ends in an orderly stop.
    take_over, ray_utils.set_sigterm_handler = ray_utils.set_sigterm_handler, lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = take_over
        for number, handler in before.items():
            signal.signal(number, handler)
    for sent in held:
        signal.raise_signal(sent)


def _check_reachable(address: str) -> None:
    # Ray itself tries a wrong address for a quarter of an hour.
    place = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        if place.port:
            socket.create_connection((place.hostname or "", place.port), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise MarlinError(f"preprocess.ray_address={address}: no Ray cluster there: {error}") from error


def _network_cpus(cfg: PreprocessConfig) -> int:
    return 0 if cfg.network_gpus else cfg.network_actors


def process_units(cfg: Config, store: Store, units: list[Unit], workers: int) -> Iterator[dict[str, Any]]:
    """Processes units on actors, one unit in flight an actor; yields manifests as they are committed.

    When a unit kills its worker, or a network actor, at every attempt, the sources that do so are found one by one and
    go to quarantine.

    Raises:
        MarlinError: storage or a model file fails.
    """
    lines = network_lines(cfg.preprocess)
    # Attempts are counted here, by unit: Ray would count restarts over an actor's whole life.
    remote = ray.remote(num_cpus=1, max_restarts=0)(_Worker)
    media = lru_cache(maxsize=8)(open_media)
    waiting = deque(Job(unit, media) for unit in units)
    flying: dict[Any, tuple[Any, Job]] = {}
    started = 0

    def start() -> Any:
        nonlocal started
        started += 1
        return remote.remote(cfg, lines[started % len(lines)] if lines else None)

    def launch(actor: Any) -> None:
        job = waiting.popleft()
        flying[job.submit(actor)] = actor, job

    for _ in range(min(workers, len(units))):
        launch(start())
    while flying:
        [ready], _ = ray.wait(list(flying), num_returns=1)
        actor, job = flying.pop(ready)
        try:
            manifest = ray.get(ready)
        except RayError as error:
            _check_died(error, job.unit)
            ray.kill(actor)
            actor, manifest = None, None if getattr(error, "preempted", False) else job.died(store)
        else:
            job.survived()
        if manifest is None:
            waiting.appendleft(job)
        else:
            yield manifest
        if waiting:
            launch(actor or start())
        elif actor:
            # Its CPU may be what another actor waits for, since a node was lost.
            ray.kill(actor)


def _check_died(error: RayError, unit: Unit) -> None:
    """Passes where the worker, or a network actor, died of its unit: killed, out of memory, lost with node or result.

    Raises:
        MarlinError: anything else; another attempt would end in the same way.
    """
    cause = getattr(error, "cause", None)
    if isinstance(error, RayTaskError):
        if isinstance(cause, MemoryError | NetworkDied):
            return
        if isinstance(cause, MarlinError):
            raise cause from error
        raise MarlinError(f"unit {unit.name} failed: {last_line(error)}") from error
    unstartable = isinstance(error, RuntimeEnvSetupError | ActorUnschedulableError) or isinstance(cause, MarlinError)
    if unstartable or "creation task" in str(error):
        raise MarlinError(f"preprocessing workers can't start: {last_line(error)}") from error
