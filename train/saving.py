"""State of both engines on local disk: DeepSpeed's own files beside plain weights."""

from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from pipeline.config.schema import Config
from train.engine import full_parameters
from train.export import save_model
from train.world import World

# The only classes in DeepSpeed's files beside tensors and plain values; all hold numbers.
_ALLOWED = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]


class SafeCheckpointEngine(TorchCheckpointEngine):  # type: ignore[misc]
    """DeepSpeed's file format, read without running code from the file."""

    def load(self, path: str, map_location: Any = None) -> Any:
        """Load tensors and plain values only; anything else in the file is an error."""
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location=map_location, weights_only=True)


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
        engine.save_checkpoint(str(directory), tag=name, save_latest=False)
    weights = {name: full_parameters(engine) for name, engine in engines.items()}
    for script in directory.glob("*.py"):
        script.unlink()  # DeepSpeed's converters come with DeepSpeed; no code travels through storage
    if world.leads:
        save_model(directory, cfg, weights["generator"], weights.get("critic", {}))


def load_state(directory: Path, engines: dict[str, Any]) -> None:
    """Restore every engine from a folder that holds the files of all ranks. A collective call."""
    for name, engine in engines.items():
        engine.checkpoint_engine = SafeCheckpointEngine(config_params=engine._config)
        engine.load_checkpoint(str(directory), tag=name)
