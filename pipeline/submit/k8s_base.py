"""The manifests that submissions are built on: those that kustomize builds its overlays on, too."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.schema import Config
from pipeline.errors import UsageError

Manifest = dict[str, Any]
_NAMES = {
    "preprocess": ("RayJob", "marlin-preprocess"),
    "train": ("JobSet", "marlin-train"),
    "budget": ("PodDisruptionBudget", "marlin-train"),
    "eval": ("JobSet", "marlin-eval"),
}


def base_manifests(cfg: Config) -> dict[str, Manifest]:
    """The base's object of each stage, and the training's disruption budget as `budget`, to be changed.

    Raises:
        UsageError: they can't be found, or a file is no YAML.
    """
    place = _place(cfg)
    found = {(each.get("kind"), (each.get("metadata") or {}).get("name")): each for each in _documents(place)}
    for kind, name in _NAMES.values():
        if (kind, name) not in found:
            raise UsageError(f"{place} holds no {kind} {name}: see docs/kubernetes.md, or unset launch.k8s.manifests")
    return {part: found[named] for part, named in _NAMES.items()}


def _place(cfg: Config) -> Path:
    own = cfg.launch.k8s.manifests
    if own:
        return Path(own).expanduser()
    places = [Path(__file__).resolve().parents[2], Path(sysconfig.get_path("data")) / "share/marlin-pipeline"]
    for place in places:
        if (place / "k8s/base/train.yaml").is_file():
            return place / "k8s/base"
    raise UsageError(f"no Kubernetes manifests in {' or '.join(map(str, places))}: set launch.k8s.manifests")


def _documents(place: Path) -> Iterator[Manifest]:
    files = sorted(place.glob("*.yaml")) if place.is_dir() else [place]
    for file in files:
        try:
            for document in yaml.safe_load_all(file.read_text("utf-8")):
                if isinstance(document, dict):
                    # Anchors make parts of a document one object: what is changed in one place must not change in all.
                    yield _unshared(document)
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}: set launch.k8s.manifests") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UsageError(f"{file} is no YAML: {' '.join(str(error).split())}") from None


def _unshared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshared(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unshared(each) for each in value]
    return value
