"""A corpus made of the sample videos, and the configuration that all benchmarks of this folder share."""

import shutil
from pathlib import Path
from typing import Any

from pipeline.assets import pull_samples
from pipeline.config.schema import Config, CorpusConfig, DataConfig, PreprocessConfig, StorageConfig, TrainConfig

FACES = ("WolfgangLanger_Pexels", "single_face", "carphone_pristine", "face_noface", "noface_face")


def make_corpus(folder: Path, copies: int) -> Path:
    """`copies` of each sample video with a face, as files of their own."""
    folder.mkdir(parents=True)
    samples = {path.stem: path for path in pull_samples(progress=False).values()}
    for number in range(copies):
        for name in FACES:
            shutil.copy(samples[name], folder / f"{number:03d}-{samples[name].name}")
    return folder


def make_config(corpus: Path, root: Path, **preprocess: Any) -> Config:
    """A configuration that keeps every copy."""
    section = {"near_duplicates": False, "max_failed": 1.0, **preprocess}
    return Config(
        corpus=CorpusConfig(path=str(corpus), name="faces"),
        storage=StorageConfig(root=str(root)),
        preprocess=PreprocessConfig.model_validate(section),
        data=DataConfig(),
        train=TrainConfig(steps=1),
    )
