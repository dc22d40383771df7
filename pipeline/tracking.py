"""One MLflow run for the whole life of a run, however often its jobs are restarted."""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import local_root, tracking_uri
from pipeline.storage import AlreadyExists, NotFound, Store
from pipeline.storage.manifest import parse_json, to_json

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from numpy.typing import NDArray

_KEY = "mlflow.json"
_MAX_PARAM = 500  # MLflow refuses longer values on some backends
_MAX_BATCH = 100  # and more parameters in one request
# MLflow repeats a request for minutes: right for a server that went away, not for one that never was there.
_FIRST_CONTACT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_log = logging.getLogger(__name__)


class Tracker:
    """Writes to one MLflow run. Metrics are queued and sent in the background."""

    def __init__(self, client: "MlflowClient", uri: str, run_id: str) -> None:
        self._client = client
        self.uri = uri
        self.run_id = run_id

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import mlflow

        try:
            mlflow.flush_async_logging()
            self._client.set_terminated(self.run_id, "FINISHED" if error is None else "FAILED")
        except mlflow.MlflowException as lost:
            _log.warning("MLflow at %s no longer answers, its last values are lost: %s", self.uri, _one_line(lost))

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Queue values of one step; returns at once."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self.run_id, metrics=metrics, synchronous=False)

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Record parameters that the run does not have yet; MLflow's are write-once."""
        from mlflow.entities import Param

        known = self._client.get_run(self.run_id).data.params
        new = [Param(name, str(value)[:_MAX_PARAM]) for name, value in values.items() if name not in known]
        for first in range(0, len(new), _MAX_BATCH):
            self._client.log_batch(self.run_id, params=new[first : first + _MAX_BATCH])

    def log_image(self, name: str, image: "NDArray[np.uint8]", step: int) -> None:
        """Attach an RGB image (H, W, 3) of a step; MLflow shows those of one name in a row."""
        self._client.log_image(self.run_id, image, key=name, step=step)

    def log_file(self, path: Path, folder: str = "") -> None:
        """Attach a file to the run."""
        self._client.log_artifact(self.run_id, str(path), folder or None)


def open_tracker(cfg: Config, run: Store) -> Tracker:
    """Continue the MLflow run named in the run's folder, or start one and name it there.

    Raises:
        MarlinError: the tracking server does not answer or refuses.
    """
    client, uri = _client(cfg)
    from mlflow.exceptions import MlflowException

    try:
        try:
            run_id = parse_json(run.read(_KEY), f"{run.url}/{_KEY}")["run_id"]
            client.update_run(run_id, status="RUNNING")
        except NotFound:
            run_id = _start(client, cfg, run)
        tracker = Tracker(client, uri, run_id)
        tracker.log_params(flatten(cfg.model_dump(mode="json")))
    except MlflowException as error:
        raise _unusable(uri, error) from None
    return tracker


def metric_history(cfg: Config, run: Store, name: str) -> list[tuple[int, float]]:
    """Values of a metric by step; a step that was trained twice counts with its last value."""
    try:
        run_id = parse_json(run.read(_KEY), f"{run.url}/{_KEY}")["run_id"]
    except NotFound:
        return []
    client, uri = _client(cfg)
    from mlflow.exceptions import MlflowException

    try:
        history = client.get_metric_history(run_id, name)  # in the order in which it was logged
    except MlflowException as error:
        raise _unusable(uri, error) from None
    return sorted({metric.step: metric.value for metric in history}.items())


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _client(cfg: Config) -> "tuple[MlflowClient, str]":
    import mlflow
    from mlflow import MlflowClient

    uri = tracking_uri(cfg)
    if uri.startswith("sqlite:///"):
        folder = Path(uri.removeprefix("sqlite:///")).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MarlinError(
                f"tracking.uri={uri}: can't make {folder}: {error.strerror}; choose another path"
            ) from None
    patience = {name: value for name, value in _FIRST_CONTACT.items() if name not in os.environ}
    os.environ.update(patience)
    try:
        mlflow.set_tracking_uri(uri)
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except mlflow.MlflowException as error:
        raise _unusable(uri, error) from None
    finally:
        for name in patience:
            del os.environ[name]
    return client, uri


def _unusable(uri: str, error: Exception) -> MarlinError:
    text = _one_line(error)
    if "Max retries exceeded" in text:
        text = "no server answers"
    return MarlinError(f"MLflow at {uri}: {text}; check that it runs, and tracking.uri")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _start(client: "MlflowClient", cfg: Config, run: Store) -> str:
    experiment = client.get_experiment_by_name(cfg.tracking.experiment)
    experiment_id = experiment.experiment_id if experiment else _create_experiment(client, cfg)
    started = client.create_run(experiment_id, run_name=cfg.run.name, tags={"marlin.run": run.url})
    run_id = str(started.info.run_id)
    try:
        run.create(_KEY, to_json({"run_id": run_id, "experiment": cfg.tracking.experiment}))
    except AlreadyExists:
        client.delete_run(run_id)
        run_id = str(parse_json(run.read(_KEY), f"{run.url}/{_KEY}")["run_id"])
    return run_id


def _create_experiment(client: "MlflowClient", cfg: Config) -> str:
    """With embedded SQLite the artifacts lie beside the database, not in the current folder."""
    root = None if cfg.tracking.uri else local_root(cfg)
    location = (root / "mlartifacts").as_uri() if root else None
    return str(client.create_experiment(cfg.tracking.experiment, artifact_location=location))
