"""What of a configuration decides a dataset's content, and the check that a dataset was made with it."""

from collections.abc import Mapping
from typing import Any

from pipeline.config.schema import PreprocessConfig
from pipeline.errors import UsageError
from preprocess.models import describe, model_files

# Where and how fast it runs, and when it gives up; network files count by their hash, not by their path.
_NO_CONTENT = {"workers", "network_actors", "network_gpus", "ray_address", "object_store_mb", "max_failed", "models"}


def content_settings(cfg: PreprocessConfig) -> dict[str, Any]:
    """The settings and model files that every unit of a dataset must share, as JSON."""
    settings = cfg.model_dump(mode="json", exclude=_NO_CONTENT)
    return {"config": settings, "models": describe(model_files(cfg))}


def check_same(stored: Mapping[str, Any], wanted: Mapping[str, Any], url: str) -> None:
    """Refuses to mix two configurations in one dataset.

    Raises:
        UsageError: naming the keys that differ.
    """
    before, now = _flat(stored), _flat(wanted)
    differing = [
        f"{key} ({before.get(key, 'absent')}, now {now.get(key, 'absent')})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if differing:
        raise UsageError(
            f"the dataset at {url} was made with other settings: {', '.join(differing)}. "
            "Set them back to extend it, or give the new dataset another corpus.name"
        )


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    flat = {f"preprocess.{key}": str(value) for key, value in settings["config"].items()}
    return flat | {f"model file {model['name']}": model["sha256"][:12] for model in settings["models"]}
