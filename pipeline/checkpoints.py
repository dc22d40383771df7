"""Published checkpoints of a run: what training writes and evaluation reads.

``checkpoints/<step>/<attempt>/…`` holds the files; ``checkpoints/<step>.r<n>.manifest.json`` is put last, names every
file with its size and sha256, and is the commit point: files without a manifest do not exist.
"""

import json
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import MarlinError, UsageError
from pipeline.storage import AlreadyExists, NotFound, Store, open_store
from pipeline.storage.manifest import FileEntry, sha256_file, to_json

SCHEMA = 1
_log = logging.getLogger(__name__)
CONFIG_FILE = "config.yaml"
MODEL_FILES = ("model.safetensors", CONFIG_FILE)
_FILE = re.compile(r"^checkpoints/(step-\d{8})/")
_MANIFEST = re.compile(r"^checkpoints/step-(\d{8})\.r(\d+)\.manifest\.json$")


class DamagedCheckpoint(MarlinError):
    """A file of a checkpoint is not what its manifest committed."""


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint; ``info`` holds what the trainer noted beside the files."""

    step: int
    revision: int
    prefix: str
    files: tuple[FileEntry, ...]
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """Step and revision, the name that evaluation results are filed under."""
        return f"{step_name(self.step)}.r{self.revision}"


def step_name(step: int) -> str:
    """Folder name of a step."""
    return f"step-{step:08d}"


def check_uploaded(run: Store, prefix: str, files: Sequence[FileEntry]) -> None:
    """Raise `MarlinError` unless every file lies in storage in its full size, as it must before it is published."""
    found = {item.key: item.size for item in run.list(f"{prefix}/")}
    for entry in files:
        if found.get(f"{prefix}/{entry.name}") != entry.size:
            raise MarlinError(
                f"{run.url}/{prefix}/{entry.name} was uploaded and is not there any more: "
                "is the run training twice at once? End one of them, and start again"
            )


def publish_checkpoint(
    run: Store, step: int, prefix: str, files: Sequence[FileEntry], info: dict[str, Any]
) -> Checkpoint:
    """Commit uploaded files as the next revision of a step. Done again for the same ``prefix``, nothing is added.

    Args:
        run: the run's folder.
        step: optimiser steps done.
        prefix: key of the folder that holds the files.
        files: what lies there, names relative to ``prefix``.
        info: JSON values kept in the manifest.
    """
    ordered = tuple(sorted(files, key=lambda entry: entry.name))
    content = {"schema": SCHEMA, "step": step, "prefix": prefix, "files": [f.to_dict() for f in ordered], "info": info}
    manifest, revision = to_json(content), 0
    while True:
        key = f"checkpoints/{step_name(step)}.r{revision}.manifest.json"
        try:
            run.create(key, manifest)
        except AlreadyExists:
            if not _holds(run, key, manifest):  # ours, where only the answer to an earlier try was lost
                revision += 1
                continue
        return Checkpoint(step, revision, prefix, ordered, info)


def list_checkpoints(run: Store) -> list[Checkpoint]:
    """Published checkpoints, oldest step first, the highest readable revision of each; reads manifests only."""
    return list({checkpoint.step: checkpoint for checkpoint in list_revisions(run)}.values())


def list_revisions(run: Store) -> list[Checkpoint]:
    """Every revision of every step, ascending. A damaged manifest is left out with a warning.

    Raises:
        MarlinError: a manifest was written by a newer version.
    """
    found = []
    for item in run.list("checkpoints/"):
        match = _MANIFEST.match(item.key)
        if match:
            found.append((int(match[1]), int(match[2]), item.key))
    read = [_read(run, key, revision) for _, revision, key in sorted(found)]
    return [checkpoint for checkpoint in read if checkpoint is not None]


def find_checkpoint(url: str) -> tuple[Store, Checkpoint]:
    """The checkpoint at a URL, with its run: `<run>/checkpoints/step-00012000.r0`, or `<run>` for its newest.

    Raises:
        UsageError: there is none.
    """
    named = re.fullmatch(r"(.*)/checkpoints/(step-\d{8}\.r\d+)", url.rstrip("/"))
    run = open_store(named[1] if named else url)
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        raise UsageError(f"{url}: no published checkpoint lies there; give the URL of a run")
    if named is None:
        return run, checkpoints[-1]
    for checkpoint in checkpoints:
        if checkpoint.name == named[2]:
            return run, checkpoint
    raise UsageError(f"{url}: no such checkpoint; there are {', '.join(each.name for each in checkpoints)}")


def fetch_checkpoint(run: Store, checkpoint: Checkpoint, directory: Path, names: Collection[str] | None = None) -> Path:
    """Copy the files of a checkpoint into ``directory`` and check each against the manifest.

    Raises:
        MarlinError: a file is missing or differs from what was published.
    """
    for entry in checkpoint.files:
        if names is not None and entry.name not in names:
            continue
        target = directory / entry.name
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):  # what came damaged over the line may lie there whole
            run.fetch(f"{checkpoint.prefix}/{entry.name}", target)
            if target.stat().st_size == entry.size and sha256_file(target) == entry.sha256:
                break
        else:
            raise DamagedCheckpoint(
                f"checkpoint {checkpoint.name} in {run.url}: {entry.name} is damaged (sha256 differs)"
            )
    return directory


def delete_checkpoint(run: Store, checkpoint: Checkpoint) -> None:
    """Withdraw a checkpoint: its manifest first, so that nobody starts to read what is about to go."""
    run.delete(f"checkpoints/{checkpoint.name}.manifest.json")
    for entry in checkpoint.files:
        run.delete(f"{checkpoint.prefix}/{entry.name}")


def remove_unpublished(run: Store) -> None:
    """Remove what publications and withdrawals that were cut short left behind; what a manifest names stays.

    Only for the one that writes this run, while it publishes nothing.
    """
    keys = [item.key for item in run.list("checkpoints/")]
    for key in unpublished(keys, list_revisions(run)):
        run.delete(key)
    run.remove_unfinished("checkpoints/")


def unpublished(keys: Sequence[str], published: Sequence[Checkpoint]) -> list[str]:
    """The files among ``keys`` that no checkpoint names. Those of steps with a damaged manifest are not among them."""
    named = {f"{checkpoint.prefix}/{entry.name}" for checkpoint in published for entry in checkpoint.files}
    readable = {f"checkpoints/{checkpoint.name}.manifest.json" for checkpoint in published}
    doubtful = {key.split("/")[1].split(".")[0] for key in keys if _MANIFEST.match(key) and key not in readable}
    files = [(key, found[1]) for key in keys if (found := _FILE.match(key))]
    return [key for key, step in files if key not in named and step not in doubtful]


def _holds(run: Store, key: str, data: bytes) -> bool:
    try:
        return run.read(key) == data
    except NotFound:
        return False


def _read(run: Store, key: str, revision: int) -> Checkpoint | None:
    try:
        data = run.read(key)
    except NotFound:
        return None  # withdrawn since it was listed
    try:
        content = json.loads(data)
        schema = content["schema"]
        if schema == SCHEMA:
            files = tuple(FileEntry.from_dict(item) for item in content["files"])
            return Checkpoint(content["step"], revision, content["prefix"], files, content["info"])
    except (ValueError, TypeError, KeyError, AttributeError, MarlinError):
        _log.warning("skipping %s/%s: the manifest is damaged", run.url, key)
        return None
    raise MarlinError(f"{run.url}/{key} has schema {schema}, this version reads {SCHEMA}: upgrade")
