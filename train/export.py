"""Weights outside DeepSpeed: safetensors beside the resolved configuration."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.config.load import dump_config, load_config
from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from train.model import Geometry, MaskedAutoencoder, build_model


def geometry_of(cfg: Config) -> Geometry:
    """Clip and cube that a configuration trains on."""
    return Geometry(frames=cfg.data.frames, size=cfg.preprocess.size, patch=cfg.model.patch)


def model_of(cfg: Config) -> MaskedAutoencoder:
    """The masked autoencoder of a configuration, with fresh weights."""
    return build_model(
        cfg.model.size,
        geometry_of(cfg),
        recompute=cfg.model.checkpoint_activations,
        normalize=cfg.data.normalize,
    )


def save_model(directory: Path, cfg: Config, model: Mapping[str, Tensor], critic: Mapping[str, Tensor]) -> None:
    """Write model.safetensors, critic.safetensors (when there is a critic) and config.yaml."""
    save_file(dict(model), directory / "model.safetensors")
    if critic:
        save_file(dict(critic), directory / "critic.safetensors")
    (directory / "config.yaml").write_text(dump_config(cfg), "utf-8")


def load_model(directory: Path) -> tuple[MaskedAutoencoder, Config]:
    """The masked autoencoder of a fetched checkpoint, in evaluation mode on the CPU, and its configuration.

    Raises:
        MarlinError: the weights do not belong to the configuration beside them.
    """
    cfg = load_config(str(directory / "config.yaml"))
    model = model_of(cfg)
    try:
        model.load_state_dict(load_file(directory / "model.safetensors"))
    except RuntimeError as error:
        raise MarlinError(f"{directory}/model.safetensors does not fit its config.yaml: {error}") from None
    return model.eval(), cfg
