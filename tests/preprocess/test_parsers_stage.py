"""The parsing backends in the whole stage, on real faces.

The tiny networks give one fixed class map, so that labels lie right only where alignment put the face.
"""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_parsers import farl_places, write_painted_bisenet, write_painted_farl

from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.layout import dataset_store
from pipeline.storage.manifest import sha256_file
from preprocess.regions import LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, patch_grid
from preprocess.stage import run_preprocess

pytestmark = pytest.mark.slow


def _farl_map() -> np.ndarray:
    """LaPa's classes at their places in the aligned, tanh-warped square of 448 pixels."""
    places = {
        1: (256, 290, 120),
        4: (196, 226, 14),
        5: (316, 226, 14),
        6: (256, 275, 14),
        9: (256, 360, 14),
    }
    columns, rows = farl_places()
    classes = np.zeros((448, 448), np.uint8)
    for value, (x, y, radius) in places.items():
        classes[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = value
    return classes


def _bisenet_map() -> np.ndarray:
    """CelebAMask-HQ's classes about where a face has them in the middle half of a picture of 512 pixels."""
    classes = np.zeros((512, 512), np.uint8)
    for value, x, y, radius in [(1, 256, 270, 100), (5, 215, 235, 12), (4, 297, 235, 12), (10, 256, 270, 14)]:
        cv2.circle(classes, (x, y), radius, value, -1)
    cv2.ellipse(classes, (256, 325), (28, 10), 0, 0, 360, 12, -1)
    return classes


@pytest.mark.parametrize("backend", ["farl", "bisenet"])
def test_a_dataset_by_a_network_of_ones_own(
    backend: str, tmp_path: Path, face_clip: Path, make_config: Callable[..., Config]
) -> None:
    (tmp_path / "raw").mkdir()
    shutil.copy(face_clip, tmp_path / "raw/who.mp4")
    network = (
        write_painted_farl(tmp_path / "net.pt", _farl_map())
        if backend == "farl"
        else write_painted_bisenet(tmp_path / "net.onnx", _bisenet_map())
    )
    sha256 = sha256_file(network)
    cfg = make_config(
        tmp_path / "raw", parser=backend, models={backend: str(network)}, parse_batch=5, holdout=0.0, workers=1
    )

    summary = run_preprocess(cfg, progress=False)

    assert (summary.counts["samples"], summary.counts["frames"]) == (2, 32)
    store = dataset_store(cfg)
    info = json.loads(store.read("dataset.json"))
    assert info["parser"] == backend
    assert [(model["name"], model["sha256"]) for model in info["models"]][-1] == (backend, sha256)
    assert "selfie_segmentation" not in {model["name"] for model in info["models"]}
    for sample in load_dataset(store).samples:
        parts = {name: store.read_range(sample.shard, *place) for name, place in sample.parts.items()}
        record = json.loads(parts["json"])
        assert (record["parser"], record["models"][backend], record["unparsed"]) == (backend, sha256, [])
        labels = cv2.imdecode(np.frombuffer(parts["labels.png"], np.uint8), cv2.IMREAD_GRAYSCALE)
        frames = labels.reshape(-1, 224, 224)
        np.testing.assert_array_equal(np.load(io.BytesIO(parts["regions.npy"])), patch_grid(frames, 16))
        middles = {r: np.argwhere(frames[0] == r).mean(axis=0) for r in (LEFT_EYE, RIGHT_EYE, NOSE, MOUTH)}
        # Where the mesh has them on this man: (row, column). BiSeNet's map is fixed in the picture: only about there.
        for region, place in ((RIGHT_EYE, (88, 74)), (LEFT_EYE, (84, 148)), (MOUTH, (171, 117))):
            off = np.linalg.norm(middles[region] - place)
            assert off < (6 if backend == "farl" else 30), (region, middles)
        assert 90 < middles[NOSE][0] < 165
