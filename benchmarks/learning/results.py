"""Results, one small file for each variant and seed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning.protocol import Job, Protocol, StageName
from pipeline.errors import MarlinError, UsageError
from pipeline.storage.atomic import whole_file
from pipeline.storage.manifest import to_json

Result = dict[str, Any]


def read_result(folder: Path, job: Job, digest: str) -> Result | None:
    """The result of a job, None where there is none.

    Raises:
        UsageError: it is of another protocol.
        MarlinError: it is damaged.
    """
    path = folder / f"{job.name}.json"
    if not path.exists():
        return None
    result = _read(path)
    if result["digest"] != digest:
        raise UsageError(f"{path} was measured by another protocol: move it away, or give another folder")
    return result


def write_result(folder: Path, job: Job, result: Result) -> None:
    """Write a result, whole or not at all."""
    with whole_file(folder / f"{job.name}.json") as file:
        file.write(to_json(result))


def all_results(folder: Path, stage: StageName) -> list[Result]:
    """The results of a stage, in the order of their names.

    Raises:
        MarlinError: there are none, or one is damaged.
    """
    found = [_read(path) for path in sorted(folder.glob(f"{stage}-*.json"))]
    if not found:
        raise MarlinError(f"{folder} has no results of stage {stage}: `run` makes them")
    return found


def whole_results(folder: Path, protocol: Protocol, stage: StageName) -> list[Result]:
    """The results of a stage, with the tasks that other stages measured of what it trained.

    Raises:
        MarlinError: as `all_results`.
    """
    found = {(result["variant"], result["seed"]): result for result in all_results(folder, stage)}
    for name, other in protocol.stages.items():
        if other.trained == stage and any(folder.glob(f"{name}-*.json")):
            for result in all_results(folder, name):
                key = result["variant"], result["seed"]
                if key in found:
                    found[key] = found[key] | {"tasks": found[key]["tasks"] | result["tasks"]}
    return list(found.values())


def pack(folder: Path, file: Path) -> int:
    """All results of a folder in one file; returns how many."""
    found = {path.name: _read(path) for path in sorted(folder.glob("*-s*.json"))}
    with whole_file(file) as target:
        target.write(to_json(found))
    return len(found)


def unpack(file: Path, folder: Path) -> int:
    """The results of a packed file, each in its own again; returns how many.

    Raises:
        MarlinError: it holds something else.
    """
    found = _read(file)
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in found.items():
        if Path(name).name != name or not isinstance(result, dict):
            raise MarlinError(f"{file} holds no packed results: `pack` makes it")
        with whole_file(folder / name) as target:
            target.write(to_json(result))
    return len(found)


def seeds_of(results: Sequence[Result], variant: str) -> dict[int, Result]:
    """The results of a variant by seed."""
    return {result["seed"]: result for result in results if result["variant"] == variant}


def _read(path: Path) -> Result:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise MarlinError(f"{path} is no result: {error}") from None
    if not isinstance(found, dict):
        raise MarlinError(f"{path} is no result: remove it, and run again")
    return found
