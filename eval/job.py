"""Evaluate one published checkpoint: run the tasks that have no result yet, publish each once, log it to MLflow."""

import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.heads import HEAD, publish_head
from eval.kept import WEIGHTS, publish_weights
from eval.loading import open_checkpoint
from eval.results import pick_checkpoint, publish_result, read_result
from eval.subgroups import check_labels
from eval.tasks.context import FeatureCache, Measured, Task, TaskContext
from eval.tasks.registry import TASKS
from pipeline.checkpoints import Checkpoint, list_checkpoints
from pipeline.config.schema import Config
from pipeline.dataset import Dataset, load_dataset
from pipeline.layout import run_store
from pipeline.provenance import versions
from pipeline.storage import Store
from pipeline.storage.manifest import to_json
from pipeline.tracking import open_tracker, usable_uri

_log = logging.getLogger(__name__)


def check_tasks(cfg: Config) -> None:
    """Whether the datasets can serve ``eval.tasks``, asked before hours of training.

    Raises:
        MarlinError: it can't; the message names the setting to change.
    """
    datasets = _Datasets()
    for name in cfg.eval.tasks:
        task = TASKS[name]
        task.check(cfg, datasets.of(task.store(cfg)))
    check_labels(cfg.eval.subgroups, [datasets.of(TASKS[name].store(cfg)) for name in cfg.eval.tasks])


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
    usable_uri(cfg)  # asked before hours of measuring
    run = run_store(cfg)
    chosen = pick_checkpoint(run, list_checkpoints(run), checkpoint)
    check_tasks(cfg)
    return evaluate(cfg, run, chosen, progress=progress)


def evaluate(
    cfg: Config, run: Store, checkpoint: Checkpoint, tasks: Sequence[str] | None = None, *, progress: bool = True
) -> dict[str, dict[str, Any]]:
    """Results of some tasks, by default ``eval.tasks``, on a checkpoint; see `run_eval`."""
    datasets = _Datasets()
    asked = {name: run_settings(cfg, TASKS[name], datasets) for name in tasks or cfg.eval.tasks}
    results = {name: read_result(run, checkpoint, name) for name in asked}
    missing = [name for name, result in results.items() if result is None]
    for name, result in results.items():
        if result is not None:
            _check_same(result, asked[name], f"{run.url}/evals/{checkpoint.name}/{name}.json")
    if missing:
        with open_checkpoint(run, checkpoint) as (model, trained):
            here, features = eval_config(cfg, trained), FeatureCache()
            for name in missing:
                _log.info("evaluating %s: %s", checkpoint.name, name)
                store, unfinished = TASKS[name].store(cfg), _unfinished(run, checkpoint, name, asked[name])
                context = TaskContext(here, model, datasets.of(store), store, unfinished, progress, features)
                measured = TASKS[name].run(context)
                kept = _publish_networks(run, checkpoint, name, measured)
                found = {**measured.result, **kept, **asked[name], **_identity(checkpoint)}
                results[name] = publish_result(run, checkpoint, name, found)
                for item in unfinished.list(""):
                    unfinished.delete(item.key)
    there = {name: result for name, result in results.items() if result is not None}
    track_results(cfg, run, [checkpoint])
    return there


def _publish_networks(run: Store, checkpoint: Checkpoint, task: str, measured: Measured) -> dict[str, Any]:
    """Store what a task trained; the fields of its result that name the files."""
    named: dict[str, Any] = {}
    if measured.head is not None:
        named[HEAD] = publish_head(run, checkpoint, task, measured.head)
    if measured.weights:
        weights = measured.weights.items()
        named[WEIGHTS] = {what: publish_weights(run, checkpoint, task, what, data) for what, data in weights}
    return named


def track_results(cfg: Config, run: Store, checkpoints: Sequence[Checkpoint]) -> None:
    """Add all results of some checkpoints to the run's MLflow run, also of jobs that ended before they did so."""
    with (
        tempfile.TemporaryDirectory(prefix="marlin-mlflow-") as folder,
        open_tracker(cfg, run, Path(folder)) as tracker,
    ):
        for checkpoint in checkpoints:
            results = {task: read_result(run, checkpoint, task) for task in cfg.eval.tasks}
            values = {
                f"eval/{task}/{name}": value
                for task, result in results.items()
                if result is not None
                for name, value in result["metrics"].items()
            }
            if values and "samples" in checkpoint.info:
                values["eval/samples"] = checkpoint.info["samples"]
            tracker.log_metrics(values, checkpoint.step)


def eval_config(cfg: Config, trained: Config) -> Config:
    """The configuration a model was trained with, at the place and with the ``eval`` section of another one."""
    here = {"run": cfg.run, "storage": cfg.storage, "corpus": cfg.corpus, "tracking": cfg.tracking, "eval": cfg.eval}
    names = ("dataset", "mix", "decoder", "decode_device", "keep_gb", "threads", "read_ahead")
    machine = {name: getattr(cfg.data, name) for name in (*names, "cache_dir", "cache_gb", "connections")}
    return trained.model_copy(update={**here, "data": trained.data.model_copy(update=machine)})


class _Datasets:
    """Datasets by URL, each read once."""

    def __init__(self) -> None:
        self._read: dict[str, Dataset] = {}

    def of(self, store: Store) -> Dataset:
        if store.url not in self._read:
            self._read[store.url] = load_dataset(store)
        return self._read[store.url]


def run_settings(cfg: Config, task: Task, datasets: _Datasets) -> dict[str, Any]:
    """What must be equal for two results of a task to be comparable."""
    return {"seed": cfg.eval.seed, "eval": task.settings(cfg.eval), "dataset": datasets.of(task.store(cfg)).identity}


def _unfinished(run: Store, checkpoint: Checkpoint, task: str, asked: Mapping[str, Any]) -> Store:
    """Where parts of a task are kept until its result is there; those of another question lie elsewhere."""
    digest = hashlib.sha256(to_json(asked)).hexdigest()[:12]
    return run.at(f"evals/{checkpoint.name}/{task}.unfinished/{digest}")


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    hashes = {entry.name: entry.sha256 for entry in checkpoint.files}
    model = {"name": checkpoint.name, "step": checkpoint.step, "sha256": hashes["model.safetensors"]}
    return {"checkpoint": model, "versions": versions()}


def _check_same(result: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> None:
    """Results are created once: say so when the one that stands answers another question."""
    differs = sorted(name for name, value in settings.items() if result.get(name) != value)
    if differs:
        _log.warning("%s answers another %s and is kept; delete it to measure again", where, " and ".join(differs))
