"""The stages of a run, in their order."""

from collections.abc import Collection
from typing import Literal, get_args

from pipeline.config.schema import Config
from pipeline.errors import UsageError

Stage = Literal["preprocess", "train", "eval"]
STAGES: tuple[Stage, ...] = get_args(Stage)


def in_order(wanted: Collection[Stage]) -> list[Stage]:
    """The wanted stages, each after what it needs of the others."""
    return [stage for stage in STAGES if stage in wanted]


def ray_workers(cfg: Config, cores: int) -> int:
    """Worker actors of preprocessing on a Ray cluster with so many cores."""
    networks = 0 if cfg.preprocess.network_gpus else cfg.preprocess.network_actors
    return cfg.preprocess.workers or max(1, cores - networks)


def refuse_networks_without_gpus(cfg: Config, gpus: int, key: str) -> None:
    """Networks on GPUs need some.

    Args:
        cfg: the run.
        gpus: of a node of preprocessing.
        key: where they are configured.

    Raises:
        UsageError: they have none.
    """
    if cfg.preprocess.network_gpus and not gpus:
        raise UsageError(f"preprocess.network_gpus={cfg.preprocess.network_gpus:g} needs GPUs: set {key}")
