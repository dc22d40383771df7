"""Detector and parser in Ray actors of their own, for clusters where GPUs are shared by many decoding workers.

A worker has one call in flight, so what waits in the object store is at most one batch of pictures a worker.

When a network actor dies, Ray starts it anew, but the calls of all its workers are lost, though one of them alone was
running. Each worker makes its call again, and this time a witness is told when it begins and when it has ended: a call
that the actor was at when it died is to blame, the others are innocent and are made once more.
"""

import os
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import ActorDiedError, ActorUnschedulableError, RayError, RayTaskError, RuntimeEnvSetupError

from pipeline.config.schema import PreprocessConfig
from pipeline.errors import MarlinError
from preprocess.arrays import Floats, Image
from preprocess.decode.stall import begin_step, end_steps, limit_steps, others_step
from preprocess.faces.detect import Detection, Detector
from preprocess.faces.mesh import MeshNet
from preprocess.models import Networks, describe, load_parser, model_files
from preprocess.parsers.base import Device

# A process that needs longer for a single frame, or for one call of a network, hangs.
STALLED_SECONDS = 600
# Between two tries to reach an actor that is being started anew.
_PAUSE = 1.0
# Deaths of an actor in a run, on all of its units: so many mean that the machine or the models are at fault.
RESTARTS = 1000
_GONE = (ActorDiedError, ActorUnschedulableError, RuntimeEnvSetupError)


class NetworkDied(MarlinError):
    """A network actor died of a call; no fault of storage or models, though it passes through a unit as they do."""


@contextmanager
def _sound() -> Iterator[None]:
    """One call of a network in this process, which is not used further after an error."""
    begin_step()
    try:
        yield
    except MarlinError:
        raise
    except Exception:
        # Memory ran out, or the GPU is in a state in which no further call succeeds: a new process begins afresh.
        traceback.print_exc()
        os._exit(1)
    finally:
        end_steps()


class NetworkActor:
    """Holds the networks that gain from a GPU; made into a Ray actor by `network_lines`."""

    def __init__(self, cfg: PreprocessConfig, device: Device) -> None:
        limit_steps(STALLED_SECONDS)
        files = model_files(cfg)
        paths = {file.name: file.path for file in files}
        self._detector = Detector(paths["scrfd"], cfg.detect_threshold, device)
        self._parser = load_parser(cfg, files, device)
        # A network or device that never works fails here, where it ends the stage, and not on every video.
        self._detector(np.zeros((64, 64, 3), np.uint8))

    def parser_name(self) -> str:
        """Name of the parser, as it stands in samples."""
        return self._parser.name

    @_sound()
    def detect(self, rgb: Image) -> list[Detection]:
        """Faces of a frame."""
        return self._detector(rgb)

    @_sound()
    def parse(self, pictures: Sequence[Image], points: Sequence[Floats]) -> list[Image | None]:
        """Label maps of pictures."""
        return self._parser(pictures, points)

    def witnessed(self, witness: Any, call: str, method: str, *arguments: Any) -> Any:
        """What a method returns; the witness knows of this call before it begins and, once it has ended, no longer."""
        ray.get(witness.begin.remote(call))
        try:
            return getattr(self, method)(*arguments)
        finally:
            # An answer can be lost too, when the next call kills the actor at once.
            ray.get(witness.end.remote(call))


class Witness:
    """Remembers which calls network actors are at, and outlives them."""

    def __init__(self) -> None:
        self._calls: set[str] = set()

    def begin(self, call: str) -> None:
        """A call begins now."""
        self._calls.add(call)

    def end(self, call: str) -> None:
        """It has ended."""
        self._calls.discard(call)

    def has_begun(self, call: str) -> bool:
        """Whether it has begun and not ended."""
        return call in self._calls


@dataclass(frozen=True)
class NetworkLine:
    """A worker's line to a network actor: what the stage hands to a worker, and what the worker asks."""

    actor: Any
    witness: Any

    def ask(self, method: str, *arguments: Any) -> Any:
        """What a method of the actor returns.

        Raises:
            NetworkDied: the actor died of this very call.
            MarlinError: the actor can't start, or a file is not what it should be.
        """
        try:
            return _result(getattr(self.actor, method).remote(*arguments))
        except NetworkDied:
            pass  # perhaps of the call of another worker
        end = time.monotonic() + STALLED_SECONDS
        while True:
            call = uuid.uuid4().hex
            try:
                return _result(self.actor.witnessed.remote(self.witness, call, method, *arguments))
            except NetworkDied as error:
                if _result(self.witness.has_begun.remote(call)):
                    raise
                if time.monotonic() > end:
                    raise MarlinError(
                        f"no network actor has come back for {STALLED_SECONDS // 60} minutes: add its node again, "
                        "or lower preprocess.network_gpus or network_actors; the same command continues"
                    ) from error
                time.sleep(_PAUSE)

    def detect(self, rgb: Image) -> list[Detection]:
        """Faces of a frame."""
        found: list[Detection] = self.ask("detect", rgb)
        return found


@dataclass(frozen=True)
class _RemoteParser:
    line: NetworkLine
    name: str

    def __call__(self, pictures: Sequence[Image], points: Sequence[Floats]) -> list[Image | None]:
        labels: list[Image | None] = self.line.ask("parse", list(pictures), list(points))
        return labels


def network_lines(cfg: PreprocessConfig) -> list[NetworkLine]:
    """Starts the network actors of a configuration; none where each worker holds its own networks."""
    if not cfg.network_actors:
        return []
    witness = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Witness).remote()
    device = "cuda" if cfg.network_gpus else "cpu"
    remote = ray.remote(
        num_cpus=0 if cfg.network_gpus else 1, num_gpus=cfg.network_gpus, max_restarts=RESTARTS, max_task_retries=0
    )(NetworkActor)
    return [NetworkLine(remote.remote(cfg, device), witness) for _ in range(cfg.network_actors)]


def connect(line: NetworkLine, cfg: PreprocessConfig) -> Networks:
    """The networks of a worker whose detector and parser live in an actor; the mesh follows faces in the worker.

    Raises:
        MarlinError: a file is not what it should be, or the actor can't start.
    """
    files = model_files(cfg)
    paths = {file.name: file.path for file in files}
    return Networks(
        detector=line.detect,
        mesh=MeshNet(paths["face_landmark"]),
        parser=_RemoteParser(line, line.ask("parser_name")),
        models=tuple((entry["name"], entry["sha256"]) for entry in describe(files)),
    )


def last_line(error: Exception) -> str:
    """The end of an error's text: what a Ray error holds before it is a traceback."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return text.removeprefix(f"{MarlinError.__module__}.{MarlinError.__name__}: ")


def _result(reference: Any) -> Any:
    """What a call returns. Raises `NetworkDied` where it is lost, `MarlinError` where another would fail as well."""
    try:
        with others_step():
            return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, MarlinError):
            raise error.cause from error
        raise MarlinError(f"a network actor failed: {last_line(error)}") from error
    except _GONE as error:
        raise MarlinError(
            f"a network actor can't start, or has died {RESTARTS} times in this run: {last_line(error)}"
        ) from error
    except RayError as error:
        raise NetworkDied(f"a network actor died: {last_line(error)}") from error
