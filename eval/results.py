"""Results of evaluation tasks, kept beside the checkpoints they measure: created once, never changed."""

import logging
from typing import Any

from pipeline.checkpoints import Checkpoint
from pipeline.errors import MarlinError
from pipeline.storage import AlreadyExists, NotFound, Store
from pipeline.storage.manifest import parse_json, to_json
from pipeline.storage.single import create_alone

SCHEMA = 1
_log = logging.getLogger(__name__)


def result_key(checkpoint: Checkpoint, task: str) -> str:
    """Where a task's result on a checkpoint lies in the run's folder."""
    return f"evals/{checkpoint.name}/{task}.json"


def lease_key(checkpoint: Checkpoint, task: str) -> str:
    """Where the lease lies of the job that works on a task."""
    return f"evals/{checkpoint.name}/{task}.lease"


def read_result(run: Store, checkpoint: Checkpoint, task: str) -> dict[str, Any] | None:
    """The published result, or None where the task was not run.

    Raises:
        MarlinError: the result was written by a newer version.
    """
    key = result_key(checkpoint, task)
    try:
        result: dict[str, Any] = parse_json(run.read(key), f"{run.url}/{key}")
    except NotFound:
        return None
    if result.get("schema") != SCHEMA:
        raise MarlinError(f"{run.url}/{key} has schema {result.get('schema')}, this version reads {SCHEMA}: upgrade")
    return result


def read_results(run: Store, checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """All published results of a checkpoint, by task.

    Raises:
        MarlinError: one was written by a newer version.
    """
    folder = f"evals/{checkpoint.name}/"
    names = [item.key.removeprefix(folder) for item in run.list(folder)]
    tasks = [name.removesuffix(".json") for name in names if name.endswith(".json") and "/" not in name]
    found = {task: read_result(run, checkpoint, task) for task in sorted(tasks)}
    return {task: result for task, result in found.items() if result is not None}


def publish_result(run: Store, checkpoint: Checkpoint, task: str, result: dict[str, Any]) -> dict[str, Any]:
    """Create a result; if another job was faster, its result stands and is returned."""
    try:
        create_alone(run, result_key(checkpoint, task), to_json({"schema": SCHEMA, "task": task, **result}))
    except AlreadyExists:
        _log.info("another job published %s of %s first", task, checkpoint.name)
    published = read_result(run, checkpoint, task)
    if published is None:
        raise MarlinError(f"{run.url}/{result_key(checkpoint, task)} vanished while it was published: run it again")
    return published


def pick_checkpoint(run: Store, checkpoints: list[Checkpoint], wanted: str | None) -> Checkpoint:
    """The newest published checkpoint, or the one named by step ("40") or name ("step-00000040.r0").

    Raises:
        MarlinError: there is none, or none of that name.
    """
    if not checkpoints:
        raise MarlinError(f"run {run.url} has no published checkpoint: train it first (marlin train)")
    if wanted is None:
        return checkpoints[-1]
    for checkpoint in checkpoints:
        if wanted in (checkpoint.name, str(checkpoint.step)):
            return checkpoint
    raise MarlinError(f"run {run.url} has no checkpoint '{wanted}'; it has {', '.join(c.name for c in checkpoints)}")
