"""The networks of a configuration: where their files are, what their hashes are, and how to load them."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.assets import model_path
from pipeline.config.schema import PreprocessConfig
from pipeline.errors import UsageError
from pipeline.storage.manifest import sha256_file
from preprocess.detect import Detector
from preprocess.hair import HairBackend, HairHeuristic, HairNetwork
from preprocess.mesh import MeshNet, PersonNet
from preprocess.parse import LandmarkParser, Parser


@dataclass(frozen=True)
class ModelFile:
    """One network file of a configuration."""

    name: str
    path: Path


def model_files(cfg: PreprocessConfig) -> tuple[ModelFile, ...]:
    """The files that a configuration uses, in a fixed order.

    Raises:
        UsageError: a configured path is no file.
        MarlinError: a pinned file is not in the cache, or its hash is wrong.
    """
    models = cfg.models
    files = [
        _file("scrfd", "detector", models.detector),
        _file("face_landmark", "landmarks", models.landmarks),
        _file("selfie_segmentation", "person", models.person),
    ]
    if models.hair:
        files.append(_file("hair_segmentation", "hair", models.hair))
    return tuple(files)


def _file(name: str, key: str, configured: str) -> ModelFile:
    path = Path(configured).expanduser().absolute() if configured else model_path(name)
    if not path.is_file():
        raise UsageError(f"preprocess.models.{key}: there is no file {path}")
    return ModelFile(name, path)


def describe(files: tuple[ModelFile, ...]) -> list[dict[str, str]]:
    """Names and hashes as they stand in dataset.json and in every sample."""
    return [{"name": file.name, "file": file.path.name, "sha256": sha256_file(file.path)} for file in files]


@dataclass(frozen=True)
class Networks:
    """Loaded networks of one worker."""

    detector: Detector
    mesh: MeshNet
    parser: Parser
    models: tuple[tuple[str, str], ...]
    """Name and sha256 of each file."""


def load_networks(cfg: PreprocessConfig, files: tuple[ModelFile, ...]) -> Networks:
    """Loads the networks of a configuration.

    Raises:
        MarlinError: a file is not what it should be.
    """
    paths = {file.name: file.path for file in files}
    hair: HairBackend = HairNetwork(paths["hair_segmentation"]) if "hair_segmentation" in paths else HairHeuristic()
    return Networks(
        detector=Detector(paths["scrfd"], cfg.detect_threshold),
        mesh=MeshNet(paths["face_landmark"]),
        parser=LandmarkParser(PersonNet(paths["selfie_segmentation"]), hair),
        models=tuple((entry["name"], entry["sha256"]) for entry in describe(files)),
    )


def parser_name(cfg: PreprocessConfig) -> str:
    """Name of the parser that a configuration uses, without loading it."""
    return f"{cfg.parser}+{HairNetwork.name if cfg.models.hair else HairHeuristic.name}"
