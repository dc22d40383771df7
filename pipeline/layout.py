"""Where a configuration keeps its dataset and its run."""

from pathlib import Path

from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.storage import Store, open_store


def dataset_store(cfg: Config) -> Store:
    """Folder of the dataset: ``data.dataset``, or ``<storage.root>/datasets/<corpus.name>``.

    Raises:
        UsageError: the configuration names several.
    """
    if cfg.data.mix:
        raise UsageError(
            "data.mix names several datasets, and one is needed here: add data.dataset=URL of the one meant"
        )
    if cfg.data.dataset:
        return open_store(cfg.data.dataset)
    return open_store(cfg.storage.root).at(f"datasets/{cfg.corpus.name}")


def run_store(cfg: Config) -> Store:
    """Folder of the run: ``<storage.root>/runs/<run.name>``."""
    return open_store(cfg.storage.root).at(f"runs/{cfg.run.name}")


def local_root(cfg: Config) -> Path | None:
    """``storage.root`` as a folder of this machine, None where it is remote."""
    url = open_store(cfg.storage.root).url
    return None if "://" in url else Path(url)


def tracking_uri(cfg: Config) -> str:
    """MLflow tracking URI: ``tracking.uri``, or an SQLite file in a local ``storage.root``.

    Raises:
        UsageError: nothing is configured and the storage is remote, where SQLite can't live.
    """
    if cfg.tracking.uri:
        return cfg.tracking.uri
    root = local_root(cfg)
    if root is None:
        raise UsageError(
            f"tracking.uri is not set and storage.root={cfg.storage.root} is remote: "
            "set tracking.uri to an MLflow server (http://…) or to sqlite:///PATH on a local disk"
        )
    return f"sqlite:///{root / 'mlflow.db'}"
