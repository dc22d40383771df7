"""The composite parser: mesh polygons, person mask and hair, on drawn faces."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_faces import Pose, mesh, paint, uniform
from tiny_parsers import write_bisenet, write_hair

from pipeline.config.schema import PreprocessConfig
from pipeline.errors import MarlinError
from preprocess.arrays import Floats, Image
from preprocess.models import load_parser, model_files, parser_name
from preprocess.parsers.base import View
from preprocess.parsers.hair import HairHeuristic, HairNetwork
from preprocess.parsers.landmarks import LandmarkParser
from preprocess.regions import BACKGROUND, HAIR, LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, SKIN

VIEW = View(224, 112)
# Class 1 is hair, 2 skin; the picture's ground is 0. All three colours are equally long, as the tiny network needs.
CLASSES = {"hair": 1, "face": 2}
COLOURS = np.array([(40, 90, 226), (226, 90, 40), (226, 40, 90)], np.uint8)
POSES = [Pose(224, 224, 190), Pose(216, 231, 170, degrees=28)]


class _Person:
    """A person mask of which the lower part is missing: a hand, or a microphone."""

    def __init__(self, below: int = 256) -> None:
        self._below = below

    def __call__(self, rgb: Image) -> Floats:
        presence = np.ones((256, 256), np.float32)
        presence[self._below :] = 0
        return presence


def _picture(pose: Pose) -> Image:
    return COLOURS[paint(CLASSES, pose, VIEW.side)]


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("backend", ["network", "heuristic"])
def test_hair_is_what_is_not_face(backend: str, pose: Pose, tmp_path: Path) -> None:
    hair = HairNetwork(write_hair(tmp_path / "hair.onnx", (226, 90, 40))) if backend == "network" else HairHeuristic()
    parser = LandmarkParser(_Person(), hair, VIEW)  # type: ignore[arg-type]
    # The heuristic knows the person from the mask alone: all that is around the head is no person here.
    classes = paint(CLASSES, pose, VIEW.side)
    if backend == "heuristic":
        head = cv2.resize((classes > 0).astype(np.float32), (256, 256), interpolation=cv2.INTER_AREA)
        parser = LandmarkParser(lambda rgb: head, hair, VIEW)  # type: ignore[arg-type, return-value]

    [labels] = parser([_picture(pose)], [mesh(pose)])

    assert labels is not None
    assert parser.name == f"landmarks+hair:{backend}"
    inside, sure = VIEW.inside(classes), VIEW.inside(uniform(classes, 6).astype(np.uint8)).astype(bool)
    # The forehead's lift reaches above the drawn face: only what the network calls hair is certain there.
    assert (labels[sure & (inside == 2)] != HAIR).all()
    found = labels == HAIR
    assert (found & (inside == 1)).sum() > 0.8 * found.sum()
    if backend == "network":
        assert found[sure & (inside == 1)].all()
        assert (labels[sure & (inside == 0)] == BACKGROUND).mean() > 0.98


@pytest.mark.parametrize("pose", POSES)
def test_parts_lie_where_the_mesh_has_them(pose: Pose) -> None:
    parser = LandmarkParser(_Person(), HairHeuristic(), VIEW)  # type: ignore[arg-type]
    parts = {"left-eye": LEFT_EYE, "right-eye": RIGHT_EYE, "left-brow": LEFT_EYE, "right-brow": RIGHT_EYE, "nose": NOSE}
    classes = paint({"face": SKIN, **parts, "inner-mouth": MOUTH}, pose, VIEW.side)

    [labels] = parser([_picture(pose)], [mesh(pose)])

    assert labels is not None
    # The drawn mouth is a part of the mesh's, which has the lips too.
    sure = VIEW.inside((uniform(classes, 3) & (classes > SKIN)).astype(np.uint8)).astype(bool)
    np.testing.assert_array_equal(labels[sure], VIEW.inside(classes)[sure])


def test_skin_ends_where_the_person_does(tmp_path: Path) -> None:
    hair = HairNetwork(write_hair(tmp_path / "hair.onnx", (226, 90, 40)))
    pose = POSES[0]

    [labels] = LandmarkParser(_Person(below=140), hair, VIEW)([_picture(pose)], [mesh(pose)])  # type: ignore[arg-type]
    assert labels is not None
    border = 140 * 448 // 256 - 112
    # Eyes, nose and mouth are the mesh's, whatever covers them.
    assert set(np.unique(labels[border + 2 :])) <= {BACKGROUND, NOSE, MOUTH}
    assert (labels[border - 10 : border - 2] == SKIN).any()

    assert LandmarkParser(_Person(below=0), hair, VIEW)([_picture(pose)], [mesh(pose)]) == [None]  # type: ignore[arg-type]


def test_a_hair_file_that_is_none_is_refused(tmp_path: Path, models: dict[str, Path]) -> None:
    (tmp_path / "text.onnx").write_text("hair")
    other = write_bisenet(tmp_path / "other.onnx")
    for path, reason in ((tmp_path / "text.onnx", "is not an ONNX file"), (other, "takes")):
        cfg = PreprocessConfig.model_validate({"models": {"hair": str(path)}})
        with pytest.raises(MarlinError, match=rf"^preprocess\.models\.hair: {path} {reason}.*$"):
            load_parser(cfg, model_files(cfg))


def test_the_name_tells_where_hair_comes_from(tmp_path: Path, models: dict[str, Path]) -> None:
    for hair, name in (("", "heuristic"), (str(write_hair(tmp_path / "hair.onnx", (226, 90, 40))), "network")):
        cfg = PreprocessConfig.model_validate({"models": {"hair": hair}})
        assert load_parser(cfg, model_files(cfg)).name == parser_name(cfg) == f"landmarks+hair:{name}"
        assert [model.name for model in model_files(cfg)][3:] == (["hair_segmentation"] if hair else [])
