"""State of both engines on local disk: DeepSpeed's own files beside plain weights."""

from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from train.engine import full_parameters, set_adamw
from train.export import save_model
from train.universal import CLIENT_STATE, tensors_only
from train.world import World


def save_state(directory: Path, cfg: Config, engines: dict[str, Any], world: World) -> None:
    """Write what this rank holds of every engine; rank 0 adds the plain weights. A collective call.

    Args:
        directory: empty folder of this rank alone, so that its files are known to be its own.
        cfg: the resolved configuration, saved beside the weights.
        engines: DeepSpeed engines by name, the generator's being "generator".
        world: this rank.
    """
    for name, engine in engines.items():
        (directory / name).mkdir(parents=True)
        engine.save_checkpoint(str(directory), tag=name, save_latest=False, client_state=CLIENT_STATE)
    weights = {name: full_parameters(engine) for name, engine in engines.items()}
    for script in directory.glob("*.py"):
        script.unlink()  # DeepSpeed's converters come with DeepSpeed; no code travels through storage
    if world.leads:
        save_model(directory, cfg, weights["generator"], weights.get("critic", {}))


def load_state(directory: Path, cfg: Config, engines: dict[str, Any], *, universal: bool) -> None:
    """Restore every engine from a folder that holds the files of all ranks. A collective call.

    Args:
        directory: local copy of a checkpoint, each engine's state in universal form where that is said.
        cfg: the resolved configuration.
        engines: DeepSpeed engines by name.
        universal: `make_universal` was called, as the checkpoint is of another number of ranks.

    Raises:
        MarlinError: an engine's state is not there.
    """
    for name, engine in engines.items():
        engine._config.load_universal_checkpoint = universal and engine.zero_optimization()
        with tensors_only():
            path, _ = engine.load_checkpoint(str(directory), tag=name)
        engine._config.load_universal_checkpoint = False
        if path is None:
            raise MarlinError(f"DeepSpeed finds no state of the {name} in the checkpoint: it is not of this run")
        set_adamw(engine, cfg.train)
