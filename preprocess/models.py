"""The networks of a configuration: where their files are, what their hashes are, and how to load them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.assets import model_path
from pipeline.config.schema import PreprocessConfig
from pipeline.errors import UsageError
from pipeline.storage.manifest import sha256_file
from preprocess.arrays import Image
from preprocess.faces.detect import Detection, Detector
from preprocess.faces.mesh import MeshNet, PersonNet
from preprocess.parsers.base import Device, Parser, View
from preprocess.parsers.bisenet import BisenetParser
from preprocess.parsers.farl import FarlParser
from preprocess.parsers.hair import HairBackend, HairHeuristic, HairNetwork
from preprocess.parsers.landmarks import LandmarkParser


@dataclass(frozen=True)
class ModelFile:
    """One network file of a configuration."""

    name: str
    path: Path


def model_files(cfg: PreprocessConfig) -> tuple[ModelFile, ...]:
    """The files that a configuration uses, in a fixed order; none where it uses no networks.

    Raises:
        UsageError: a configured path is no file, or the parser's file is not configured.
        MarlinError: a pinned file is not in the cache, or its hash is wrong.
    """
    if not cfg.uses_networks:
        return ()
    models = cfg.models
    files = [_file("scrfd", "detector", models.detector), _file("face_landmark", "landmarks", models.landmarks)]
    if cfg.parser == "farl":
        files.append(_own_file("farl", models.farl))
    elif cfg.parser == "bisenet":
        files.append(_own_file("bisenet", models.bisenet))
    else:
        files.append(_file("selfie_segmentation", "person", models.person))
        if models.hair:
            files.append(_file("hair_segmentation", "hair", models.hair))
    return tuple(files)


def face_files(cfg: PreprocessConfig) -> tuple[Path, Path]:
    """The files of the networks that find faces: the detector's and the mesh's. Raises as `model_files`."""
    models = cfg.models
    detector, mesh = _file("scrfd", "detector", models.detector), _file("face_landmark", "landmarks", models.landmarks)
    return detector.path, mesh.path


def _own_file(parser: str, configured: str) -> ModelFile:
    if not configured:
        raise UsageError(
            f"preprocess.parser={parser} needs its network: set preprocess.models.{parser}=PATH "
            "(docs/parsers.md says where to get one), or use preprocess.parser=landmarks"
        )
    return _file(parser, parser, configured)


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

    detector: Callable[[Image], list[Detection]]
    mesh: MeshNet
    parser: Parser
    models: tuple[tuple[str, str], ...]
    """Name and sha256 of each file."""


def load_networks(cfg: PreprocessConfig, files: tuple[ModelFile, ...], device: Device = "cpu") -> Networks:
    """Loads the networks of a configuration.

    Raises:
        MarlinError: a file is not what it should be.
    """
    paths = {file.name: file.path for file in files}
    return Networks(
        detector=Detector(paths["scrfd"], cfg.detect_threshold, device),
        mesh=MeshNet(paths["face_landmark"]),
        parser=load_parser(cfg, files, device),
        models=tuple((entry["name"], entry["sha256"]) for entry in describe(files)),
    )


def load_parser(cfg: PreprocessConfig, files: tuple[ModelFile, ...], device: Device = "cpu") -> Parser:
    """Loads the parser of a configuration alone.

    Args:
        cfg: names the backend and the size of its pictures.
        files: as from `model_files`.
        device: where `farl` and `bisenet` run; the small networks of `landmarks` always run on the CPU.

    Raises:
        MarlinError: a file is not what it should be.
    """
    paths = {file.name: file.path for file in files}
    view = View.of(cfg)
    # One thread gains nothing from a batch, and a picture by itself takes less memory.
    batch = 1 if device == "cpu" else None
    if cfg.parser == "farl":
        return FarlParser(paths["farl"], view, device, batch)
    if cfg.parser == "bisenet":
        return BisenetParser(paths["bisenet"], view, device, batch)
    hair: HairBackend = HairNetwork(paths["hair_segmentation"]) if "hair_segmentation" in paths else HairHeuristic()
    return LandmarkParser(PersonNet(paths["selfie_segmentation"]), hair, view)


def parser_name(cfg: PreprocessConfig) -> str:
    """Name of the parser that a configuration uses, without loading it."""
    if cfg.parser != "landmarks":
        return cfg.parser
    return f"{cfg.parser}+{HairNetwork.name if cfg.models.hair else HairHeuristic.name}"
