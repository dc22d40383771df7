"""Continue from the newest published checkpoint that is whole."""

import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoints import Checkpoint, DamagedCheckpoint, fetch_checkpoint, list_checkpoints
from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.storage import NotFound, Store
from pipeline.tracking import flatten
from train.saving import load_state
from train.universal import make_universal
from train.world import World

_log = logging.getLogger(__name__)


# What may change from one start to the next, though the training is another one then.
_SETTINGS = (
    *("critic.weight", "critic.steps", "critic.lipschitz", "critic.clip", "critic.penalty"),
    *("train.steps", "train.epochs", "train.base_lr", "train.min_lr", "train.warmup"),
    *("train.betas", "train.weight_decay"),
)

_MAY_DIFFER = ("settings", "world")


def describe(cfg: Config, dataset_identity: str, world: World) -> dict[str, Any]:
    """What a checkpoint says of itself, and what a resuming run must share with it, but for `_MAY_DIFFER`."""
    flat = flatten(cfg.model_dump(mode="json"))
    return {
        "dataset": dataset_identity,
        "model": cfg.model.size,
        "clip": [cfg.data.frames, cfg.data.stride, cfg.preprocess.size, cfg.model.patch],
        "order": [cfg.data.epoch_unit, cfg.data.streams],
        "flip": cfg.data.flip,
        "normalize": cfg.data.normalize,
        "normalize_target": cfg.train.normalize_target,
        "mask": cfg.data.mask.model_dump(mode="json"),
        "critic": cfg.critic.weight > 0,
        "world": world.size,
        "zero_stage": cfg.train.zero_stage,
        "precision": cfg.train.precision,
        "global_batch": cfg.train.global_batch,
        "seed": cfg.train.seed,
        "settings": {name: flat[name] for name in _SETTINGS},
    }


def resume(
    cfg: Config, run: Store, engines: dict[str, Any], world: World, *, mine: dict[str, Any], scratch: Path
) -> int:
    """Restore the engines; returns the updates already done, 0 for a fresh run. A collective call.

    Raises:
        UsageError: the newest whole checkpoint belongs to another configuration or dataset.
    """
    for checkpoint in reversed(list_checkpoints(run)):
        _check_belongs(cfg, run, checkpoint, mine)
        # One folder a node, even where nodes share the scratch file system.
        directory = scratch / f"resume-{world.rank - world.local_rank}"
        if not _all_agree(_fetched(run, checkpoint, directory, world), world):
            continue
        if checkpoint.info["world"] != world.size:
            _log.info("converting %s: ranks %s, now %s", checkpoint.name, checkpoint.info["world"], world.size)
            if world.local_rank == 0:
                for name in engines:
                    make_universal(directory, name)
            _all_agree(True, world)  # nobody reads before it is there
        load_state(directory, cfg, engines, universal=checkpoint.info["world"] != world.size)
        _all_agree(True, world)  # nobody still reads
        if world.local_rank == 0:
            shutil.rmtree(directory)
        _log.info("resumed from checkpoint %s", checkpoint.name)
        return checkpoint.step
    return 0


def _fetched(run: Store, checkpoint: Checkpoint, directory: Path, world: World) -> bool:
    """Whether this node has a verified copy; its first rank makes it."""
    if world.local_rank != 0:
        return True
    shutil.rmtree(directory, ignore_errors=True)
    try:  # only damage is skipped: a full disk or a lost network must not cost the run its past
        fetch_checkpoint(run, checkpoint, directory)
    except (DamagedCheckpoint, NotFound) as error:
        _log.warning("skipping checkpoint %s: %s", checkpoint.name, error)
        return False
    return True


def _check_belongs(cfg: Config, run: Store, checkpoint: Checkpoint, mine: dict[str, Any]) -> None:
    for name, value in mine["settings"].items():
        saved = checkpoint.info.get("settings", {}).get(name, value)
        if saved != value:
            _log.warning("the run goes on with %s=%s, it was trained with %s so far", name, value, saved)
    for key, value in mine.items():
        saved = checkpoint.info.get(key)
        if saved == value or key in _MAY_DIFFER or (key == "dataset" and cfg.train.accept_dataset_change):
            continue
        advice = "give another run.name to start anew, or undo the change"
        if key == "dataset":
            advice = "give another run.name, or set train.accept_dataset_change=true"
        raise UsageError(f"run {run.url} was trained with {key}={saved}, this configuration has {value}: {advice}")


def _all_agree(mine: bool, world: World) -> bool:
    if world.size == 1:
        return mine
    flag = torch.tensor([int(mine)], device=world.device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MIN)
    return bool(flag.item())
