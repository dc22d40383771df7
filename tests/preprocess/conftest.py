"""Fixtures of the preprocessing tests: drawn videos made on the spot, and real ones from the pinned samples."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_videos import write_video

from pipeline.config.schema import Config, CorpusConfig, DataConfig, PreprocessConfig, StorageConfig, TrainConfig
from preprocess.decode.video import read_frames
from preprocess.models import Networks, load_networks, model_files

MakeConfig = Callable[..., Config]


@pytest.fixture(scope="session")
def networks(models: dict[str, Path]) -> Networks:
    """The default networks, loaded once."""
    cfg = PreprocessConfig()
    return load_networks(cfg, model_files(cfg))


@pytest.fixture(scope="session")
def face_clip(samples: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-two frames of a real face, 320×180, cut from a sample video."""
    frames = [frame.rgb[::2, ::2] for frame in read_frames(samples["single_face"], span=(0.0, 32 / 30))]
    return write_video(tmp_path_factory.mktemp("clip") / "face.mp4", np.stack(frames))


@pytest.fixture
def make_config(tmp_path: Path) -> MakeConfig:
    """Configurations of small datasets below the test's folder; keywords go into the preprocess section."""

    def make(corpus: Path | str, root: Path | str = tmp_path / "out", **changes: object) -> Config:
        section = {"clip_frames": 16, "min_frames": 8, "holdout": 0.25, "max_failed": 1.0, **changes}
        return Config(
            corpus=CorpusConfig(path=str(corpus), name="faces"),
            storage=StorageConfig(root=str(root)),
            preprocess=PreprocessConfig.model_validate(section),
            data=DataConfig(frames=4, stride=1),
            train=TrainConfig(steps=1),
        )

    return make
