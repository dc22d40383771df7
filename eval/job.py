"""Evaluate one published checkpoint: run the tasks that have no result yet, publish each once, log it to MLflow."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eval.results import pick_checkpoint, publish_result, read_result
from eval.tasks import reconstruction, track_probe
from eval.tasks.context import TaskContext
from pipeline.checkpoints import MODEL_FILES, Checkpoint, fetch_checkpoint, list_checkpoints
from pipeline.config.schema import Config
from pipeline.dataset import Dataset, load_dataset
from pipeline.layout import dataset_store, run_store
from pipeline.provenance import versions
from pipeline.storage import Store
from pipeline.tracking import open_tracker
from train.export import load_model
from train.model import MaskedAutoencoder

_log = logging.getLogger(__name__)

TASKS = {"track-probe": track_probe, "reconstruction": reconstruction}


def check_tasks(cfg: Config) -> None:
    """Whether the dataset can serve ``eval.tasks``, asked before hours of training.

    Raises:
        MarlinError: it can't; the message names the setting to change.
    """
    dataset = load_dataset(dataset_store(cfg))
    for task in cfg.eval.tasks:
        TASKS[task].check(dataset)


def run_eval(cfg: Config, *, checkpoint: str | None = None, progress: bool = True) -> dict[str, dict[str, Any]]:
    """Results of ``eval.tasks`` on a checkpoint; existing ones are read, missing ones are made and published.

    Args:
        cfg: the run; its ``eval`` section says what to measure.
        checkpoint: step or name; None takes the newest published one.
        progress: show bars.

    Returns:
        The published JSON of each task.

    Raises:
        MarlinError: no such checkpoint, a damaged file, or data that a task can't use.
    """
    run = run_store(cfg)
    chosen = pick_checkpoint(run, list_checkpoints(run), checkpoint)
    data = dataset_store(cfg)
    dataset = load_dataset(data)
    results = {task: read_result(run, chosen, task) for task in cfg.eval.tasks}
    missing = [task for task, result in results.items() if result is None]
    for task, result in results.items():
        if result is not None:
            _check_same(result, run_settings(cfg, dataset), f"{run.url}/evals/{chosen.name}/{task}.json")
    if missing:
        with open_checkpoint(run, chosen) as (model, trained), open_tracker(cfg, run) as tracker:
            context = TaskContext(eval_config(cfg, trained), model, dataset, data, progress)
            for task in missing:
                _log.info("evaluating %s: %s", chosen.name, task)
                found = TASKS[task].run(context) | run_settings(cfg, dataset) | _identity(chosen)
                results[task] = published = publish_result(run, chosen, task, found)
                tracker.log_metrics({f"eval/{task}/{k}": v for k, v in published["metrics"].items()}, chosen.step)
    return {task: result for task, result in results.items() if result is not None}


@contextmanager
def open_checkpoint(run: Store, checkpoint: Checkpoint) -> Iterator[tuple[MaskedAutoencoder, Config]]:
    """The model of a checkpoint and the configuration it was trained with, fetched, verified and loaded."""
    with tempfile.TemporaryDirectory(prefix="marlin-eval-") as folder:
        fetch_checkpoint(run, checkpoint, Path(folder), MODEL_FILES)
        yield load_model(Path(folder))


def eval_config(cfg: Config, trained: Config) -> Config:
    """The configuration a model was trained with, at the place and with the ``eval`` section of another one."""
    here = {"run": cfg.run, "storage": cfg.storage, "corpus": cfg.corpus, "tracking": cfg.tracking, "eval": cfg.eval}
    names = ("dataset", "mix", "decoder", "decode_device", "threads", "read_ahead")
    machine = {name: getattr(cfg.data, name) for name in (*names, "cache_dir", "cache_gb", "connections")}
    return trained.model_copy(update={**here, "data": trained.data.model_copy(update=machine)})


def run_settings(cfg: Config, dataset: Dataset) -> dict[str, Any]:
    """What must be equal for two results of a task to be comparable."""
    settings = cfg.eval.model_dump(mode="json", exclude={"tasks", "batch"})
    return {"seed": cfg.eval.seed, "eval": settings, "dataset": dataset.identity}


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    hashes = {entry.name: entry.sha256 for entry in checkpoint.files}
    model = {"name": checkpoint.name, "step": checkpoint.step, "sha256": hashes["model.safetensors"]}
    return {"checkpoint": model, "versions": versions()}


def _check_same(result: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> None:
    """Results are created once: say so when the one that stands answers another question."""
    differs = sorted(name for name, value in settings.items() if result.get(name) != value)
    if differs:
        _log.warning("%s answers another %s and is kept; delete it to measure again", where, " and ".join(differs))
