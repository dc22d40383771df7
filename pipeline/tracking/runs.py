"""Which MLflow run belongs to a run of this project."""

from typing import TYPE_CHECKING

from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import tracking_uri
from pipeline.storage import AlreadyExists, NotFound, Store
from pipeline.storage.manifest import parse_json, to_json
from pipeline.storage.single import create_alone
from pipeline.tracking.client import artifact_location

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_KEY = "mlflow.json"
_STARTED_BY = "marlin.start"


def known_run_id(run: Store) -> str | None:
    """The MLflow run that a run's folder names, None before MLflow was first reached."""
    try:
        return str(parse_json(run.read(RUN_KEY), f"{run.url}/{RUN_KEY}")["run_id"])
    except NotFound:
        return None


def find_or_start(client: "MlflowClient", cfg: Config, run: Store, token: str) -> "Run":
    """The MLflow run that the folder names; the first time one is started, and named there.

    Args:
        client: of the tracking server.
        cfg: the resolved configuration.
        run: the run's folder.
        token: of this process, so that it finds again what it started when the answer was lost.

    Raises:
        MarlinError: the folder names a run that MLflow has not.
    """
    from mlflow import MlflowException

    run_id = known_run_id(run) or _start(client, cfg, run, token)
    try:
        found = client.get_run(run_id)
        if found.info.lifecycle_stage == "active":
            return found
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    raise MarlinError(f"MLflow has no run {run_id}: restore it, or delete {run.url}/{RUN_KEY} to begin another")


def _start(client: "MlflowClient", cfg: Config, run: Store, token: str) -> str:
    experiment = cfg.tracking.experiment
    experiment_id = _experiment(client, experiment, artifact_location(tracking_uri(cfg)))
    mine = client.search_runs([experiment_id], f"tags.`{_STARTED_BY}` = '{token}'")
    if mine:
        run_id = str(mine[0].info.run_id)
    else:
        tags = {"mlflow.source.name": "marlin", "mlflow.source.type": "JOB", "marlin.run": run.url, _STARTED_BY: token}
        if cfg.tracking.parent:
            tags["mlflow.parentRunId"] = cfg.tracking.parent
        run_id = str(client.create_run(experiment_id, run_name=cfg.run.name, tags=tags).info.run_id)
    try:
        create_alone(run, RUN_KEY, to_json({"run_id": run_id, "experiment": experiment}))
    except AlreadyExists:  # another process of this run was faster
        client.delete_run(run_id)
        return str(known_run_id(run))
    return run_id


def _experiment(client: "MlflowClient", name: str, files: str | None) -> str:
    from mlflow import MlflowException

    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    try:
        return client.create_experiment(name, artifact_location=files)
    except MlflowException:
        if found := client.get_experiment_by_name(name):  # another run was faster
            return found.experiment_id
        raise
