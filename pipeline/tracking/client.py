"""The MLflow server or database of a configuration: reach it, or say in one line why not."""

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import tracking_uri
from pipeline.mounts import MOUNTINFO, filesystem_of, is_shared

if TYPE_CHECKING:
    from mlflow import MlflowClient

NO_TRACKING = "none"
"""The `tracking.uri` of runs that tell nobody."""

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # asked when they are opened, which may take a while
_SETTINGS = {
    # MLflow repeats a request for minutes, with a line each time. We do that ourselves, where nobody waits.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is the verb's
}


def usable_uri(cfg: Config) -> str:
    """The tracking URI, once what is wrong with it before anyone is asked has been ruled out.

    Raises:
        UsageError: the database is SQLite on a shared file system, or MLflow knows no such URI.
        MarlinError: the database's folder can't be made.
    """
    if cfg.tracking.uri == NO_TRACKING:
        return NO_TRACKING
    from mlflow import MlflowClient, MlflowException

    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    uri = tracking_uri(cfg)
    file = _sqlite_file(uri)
    if file is not None:
        _refuse_shared(uri, file.resolve().parent)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MarlinError(
                f"tracking.uri={uri}: can't make {file.parent}: {error.strerror}; choose another path"
            ) from None
    elif not uri.startswith(_DATABASES):
        try:
            MlflowClient(tracking_uri=uri)
        except MlflowException as error:
            raise UsageError(f"tracking.uri={uri}: {one_line(error)}") from None
    return uri


def connect(cfg: Config) -> "MlflowClient":
    """A client that has had one answer.

    Raises:
        UsageError: as `usable_uri`, or there is to be no tracking.
        MarlinError: there is no answer, or a refusal.
    """
    import mlflow
    from mlflow import MlflowClient

    uri = usable_uri(cfg)
    if uri == NO_TRACKING:
        raise UsageError(f"tracking.uri={NO_TRACKING}, and this needs MLflow: set tracking.uri, or leave it empty")
    try:
        mlflow.set_tracking_uri(uri)
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # databases raise what their drivers do
        raise unusable(uri, error) from None
    return client


def unusable(uri: str, error: Exception) -> MarlinError:
    """What MLflow said, and what to do."""
    text = one_line(error)
    if "Max retries exceeded" in text:
        text = "no server answers"
    return MarlinError(f"MLflow at {uri}: {text}; check that it runs, and tracking.uri")


def one_line(error: Exception) -> str:
    """The beginning of an error's text."""
    return " ".join(str(error).split())[:300]


def artifact_location(uri: str) -> str | None:
    """Where a new experiment keeps its files: beside an SQLite database; a server decides for itself."""
    file = _sqlite_file(uri)
    return (file.absolute().parent / "mlartifacts").as_uri() if file else None


def _sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite database, whatever driver the URI names."""
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        database = make_url(uri).database
    except ArgumentError:
        raise UsageError(f"tracking.uri={uri} is no URL of a database: write sqlite:///PATH") from None
    return Path(database.removeprefix("file:")) if database else None


def _refuse_shared(uri: str, folder: Path) -> None:
    """SQLite's locks don't hold across machines: two jobs would damage the database."""
    if not MOUNTINFO.exists():  # Linux only
        return
    kind = filesystem_of(PurePosixPath(folder), MOUNTINFO.read_text())
    if is_shared(kind):
        raise UsageError(
            f"MLflow at {uri}: SQLite is not safe on a shared file system ({kind}): run `mlflow server` on one machine "
            "and set tracking.uri to it (http://…), or to sqlite:///PATH on a local disk"
        )
