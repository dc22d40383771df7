"""A checkpoint in MLflow's model registry, as a model that maps videos to features (`eval/pyfunc.py`)."""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.results import pick_checkpoint
from pipeline.checkpoints import MODEL_FILES, Checkpoint, fetch_checkpoint, list_checkpoints
from pipeline.config.evaluation import FeaturesConfig
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import run_store, tracking_uri
from pipeline.storage import Store
from pipeline.tracking.client import connect, one_line
from pipeline.tracking.runs import known_run_id
from preprocess.models import face_files
from train.retention import best_of, read_evaluations, retention_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("pipeline", "preprocess", "train", "eval")
_NEEDS = (
    "av",
    "boto3",
    "insightface",
    "mlflow",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "pandas",
    "pydantic",
    "pyyaml",
    "requests",
    "safetensors",
    "scipy",
    "torch",
    "tqdm",
    "urllib3",
)
_URL_TAG, _HASH_TAG = "checkpoint", "checkpoint.sha256"
_log = logging.getLogger(__name__)


def register(cfg: Config, name: str, *, checkpoint: str | None = None, alias: str = "best") -> str:
    """Put a checkpoint into the registry, once; returns its version.

    Args:
        cfg: the run.
        name: of the registered model, made if need be.
        checkpoint: step or name; None takes the best by `train.keep_best`, or the newest where that is not set.
        alias: is moved to this version; empty moves none.

    Raises:
        MarlinError: no such checkpoint, none that was measured, or MLflow does not answer or refuses.
    """
    import mlflow

    run = run_store(cfg)
    chosen = _choose(cfg, run, checkpoint)
    url = f"{run.url}/checkpoints/{chosen.name}"
    client, run_id = connect(cfg), known_run_id(run)
    if run_id is None:
        raise MarlinError(f"{run.url} is not in MLflow yet: `marlin track` hands over what waits for it")
    try:
        tags = {_URL_TAG: url, _HASH_TAG: {entry.name: entry.sha256 for entry in chosen.files}["model.safetensors"]}
        version = _version_of(client, name, tags)
        if version is None:
            # Otherwise its files go to the default experiment: with a database, into whatever folder this is.
            mlflow.set_experiment(experiment_id=client.get_run(run_id).info.experiment_id)
            version = _log_model(cfg, run, chosen, name, run_id)
            for key, value in tags.items():
                client.set_model_version_tag(name, version, key, value)
        if alias:
            client.set_registered_model_alias(name, alias, version)
    except MarlinError:
        raise
    except Exception as error:  # artifact stores and databases raise what their drivers do
        raise MarlinError(f"MLflow at {tracking_uri(cfg)} does not register {name}: {one_line(error)}") from None
    return version


def _choose(cfg: Config, run: Store, wanted: str | None) -> Checkpoint:
    published, rule = list_checkpoints(run), retention_of(cfg)
    if wanted is not None or not rule.best:
        return pick_checkpoint(run, published, wanted)
    best = best_of(published, rule, read_evaluations(run, published, rule))
    if best is None:
        raise MarlinError(f"no checkpoint of {run.url} has a result of {rule.best}: evaluate one, or name a checkpoint")
    _log.info("the best by %s is %s", rule.best, best.name)
    return best


def _version_of(client: "MlflowClient", name: str, tags: Mapping[str, str]) -> str | None:
    """The version that holds this checkpoint already."""
    found = client.search_model_versions(f"name = '{name}'")
    return next((str(version.version) for version in found if tags.items() <= version.tags.items()), None)


def _log_model(cfg: Config, run: Store, chosen: Checkpoint, name: str, run_id: str) -> str:
    import mlflow
    from mlflow.models import Model

    with tempfile.TemporaryDirectory(prefix="marlin-register-") as folder, warnings.catch_warnings():
        here = Path(folder)
        fetch_checkpoint(run, chosen, here / "checkpoint", MODEL_FILES)
        _collect_networks(here)
        for package in _PACKAGES:
            shutil.copytree(_ROOT / package, here / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
        warnings.simplefilter("ignore", UserWarning)  # MLflow asks for a video as an example
        logged = Model.log(
            artifact_path=None,
            name=name,
            flavor=mlflow.pyfunc,
            registered_model_name=name,
            run_id=run_id,
            step=chosen.step,
            python_model=str(here / "code" / "eval" / "pyfunc.py"),
            artifacts={"checkpoint": str(here / "checkpoint"), "networks": str(here / "networks")},
            code_paths=[str(here / "code" / package) for package in _PACKAGES],
            pip_requirements=[f"{each}=={metadata.version(each).partition('+')[0]}" for each in _NEEDS],
            signature=_signature(cfg.eval.features),
        )
    return str(logged.registered_model_version)


def _collect_networks(here: Path) -> None:
    """The files that find faces, as the training's configuration names them, under the names in `eval/pyfunc.py`."""
    cfg = load_config(str(here / "checkpoint" / "config.yaml")).preprocess
    (here / "networks").mkdir()
    for path, name in zip(face_files(cfg), ("scrfd.onnx", "face_landmark.tflite"), strict=True):
        shutil.copy(path, here / "networks" / name)


def _signature(settings: FeaturesConfig) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, DataType

    outputs: list[tuple[Any, str]] = [
        *(("string", "video"), ("long", "track"), ("double", "start_s"), ("long", "windows")),
        *((Array(DataType.double), "feature"), ("string", "error")),
    ]
    return ModelSignature(
        inputs=Schema([ColSpec("string", "video")]),
        outputs=Schema([ColSpec(kind, name) for kind, name in outputs]),
        params=ParamSchema(
            [
                ParamSpec("cropped", "boolean", default=False),
                ParamSpec("stride", "long", default=settings.stride),
                ParamSpec("batch", "long", default=settings.batch),
            ]
        ),
    )
