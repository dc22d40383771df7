"""The parsing backends that run a network: what they feed it, what they make of its answer, what they refuse.

The tiny networks know classes by colour, so the labels of a drawn face tell of all geometry on the way there and back.
"""

from pathlib import Path

import numpy as np
import pytest
from drawn_faces import PALETTE, Pose, mesh, paint, uniform
from tiny_parsers import farl_places, write_bisenet, write_farl, write_painted_farl

from pipeline.config.schema import ModelFilesConfig, PreprocessConfig
from pipeline.errors import MarlinError, UsageError
from pipeline.storage.manifest import sha256_file
from preprocess.models import describe, load_parser, model_files, parser_name
from preprocess.parsers.base import Parser, View
from preprocess.parsers.bisenet import BisenetParser
from preprocess.parsers.farl import FarlParser
from preprocess.parsers.polygons import LEFT_EYE_RING, RIGHT_EYE_RING

REGION = {name: value for value, name in enumerate(["background", "skin", "left", "right", "nose", "mouth", "hair"])}

# Class of each part in the published order of LaPa and of CelebAMask-HQ, and the region that it must become.
LAPA = {
    "hair": 10, "face": 1, "right-brow": 2, "left-brow": 3, "right-eye": 4, "left-eye": 5, "nose": 6,
    "upper-lip": 7, "lower-lip": 9, "inner-mouth": 8,
}  # fmt: skip
CELEBA = {
    "hair": 17, "face": 1, "left-brow": 2, "right-brow": 3, "left-eye": 4, "right-eye": 5, "nose": 10,
    "upper-lip": 12, "lower-lip": 13, "inner-mouth": 11,
}  # fmt: skip
BECOMES = {
    "hair": "hair", "face": "skin", "left-brow": "left", "right-brow": "right", "left-eye": "left",
    "right-eye": "right", "nose": "nose", "upper-lip": "mouth", "lower-lip": "mouth", "inner-mouth": "mouth",
}  # fmt: skip

VIEW = View(224, 112)
POSES = [
    Pose(224, 224, 230),
    Pose(216, 231, 190, degrees=28),
    Pose(240, 215, 215, degrees=-34),
    Pose(210, 240, 150, degrees=80),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny network of each backend."""
    folder = tmp_path_factory.mktemp("networks")
    return {"farl": write_farl(folder / "farl.pt"), "bisenet": write_bisenet(folder / "bisenet.onnx")}


@pytest.fixture(scope="module")
def parsers(files: dict[str, Path]) -> dict[str, Parser]:
    """Both backends, all pictures of a call in one network call."""
    return {"farl": FarlParser(files["farl"], VIEW), "bisenet": BisenetParser(files["bisenet"], VIEW)}


def _config(**changes: object) -> PreprocessConfig:
    return PreprocessConfig.model_validate(changes)


def _regions(classes: np.ndarray, table: dict[str, int]) -> np.ndarray:
    lookup = np.zeros(256, np.uint8)
    for part, value in table.items():
        lookup[value] = REGION[BECOMES[part]]
    return lookup[classes]


@pytest.mark.parametrize(("backend", "table"), [("farl", LAPA), ("bisenet", CELEBA)])
@pytest.mark.parametrize("pose", POSES)
def test_regions_come_back_to_the_pixels_they_were_painted_on(
    parsers: dict[str, Parser], backend: str, table: dict[str, int], pose: Pose
) -> None:
    classes = paint(table, pose, VIEW.side)

    [labels] = parsers[backend]([PALETTE[classes]], [mesh(pose)])

    assert labels is not None
    assert (labels.shape, labels.dtype) == ((224, 224), np.uint8)
    wanted = VIEW.inside(_regions(classes, table))
    sure = VIEW.inside(uniform(classes, 2).astype(np.uint8)).astype(bool)
    assert set(np.unique(wanted[sure])) >= {1, 2, 3, 4, 5, 6}
    np.testing.assert_array_equal(labels[sure], wanted[sure])
    # Of the edges too most pixels are right: nothing is off by as much as a pixel.
    assert (labels == wanted).mean() > 0.985


def test_left_and_right_are_the_persons_own(parsers: dict[str, Parser]) -> None:
    for backend, table in (("farl", LAPA), ("bisenet", CELEBA)):
        [labels] = parsers[backend]([PALETTE[paint(table, POSES[0], VIEW.side)]], [mesh(POSES[0])])
        assert labels is not None
        left, right = (np.argwhere(labels == REGION[side])[:, 1].mean() for side in ("left", "right"))
        assert left > 112 > right  # the person's left is on the right of the picture


@pytest.mark.parametrize("degrees", [0, 28, -34, 80])
def test_farl_sees_the_face_where_it_was_trained_to(tmp_path: Path, degrees: float) -> None:
    pose = Pose(220, 228, 120, degrees)
    columns, rows = farl_places()
    # Mouth, nose, the whole face, and hair far out where the square is squeezed: (class, x, y, radius) of 512 pixels.
    spots = [(1, 256, 280, 130), (8, 256, 360, 25), (6, 256, 286, 25), (10, 256, 40, 40), (10, 480, 250, 40)]
    classes = np.zeros((448, 448), np.uint8)
    for value, x, y, radius in spots:
        classes[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = value
    points = mesh(pose).astype(np.float64)
    five = np.stack([points[RIGHT_EYE_RING].mean(0), points[LEFT_EYE_RING].mean(0), *points[[1, 61, 291]]])
    template = np.array([(196, 226), (316, 226), (256, 286), (220, 360.4), (292, 360.4)])
    # x' = c x − s y + u, y' = s x + c y + v, solved for the four unknowns.
    system = [row for x, y in five for row in ((x, -y, 1, 0), (y, x, 0, 1))]
    c, s, u, v = np.linalg.lstsq(np.array(system), template.ravel(), rcond=None)[0]
    down, across = np.indices((224, 224)) + 112
    x, y = c * across - s * down + u, s * across + c * down + v

    [labels] = FarlParser(write_painted_farl(tmp_path / "net.pt", classes), VIEW)(
        [np.zeros((448, 448, 3), np.uint8)], [mesh(pose)]
    )

    assert labels is not None
    wanted, sure = np.zeros((224, 224), np.uint8), np.ones((224, 224), bool)
    for value, middle_x, middle_y, radius in spots:
        distance = np.hypot(x - middle_x, y - middle_y)
        wanted[distance <= radius] = {1: 1, 8: 5, 6: 4, 10: 6}[value]
        sure &= np.abs(distance - radius) > 5
    assert set(np.unique(wanted[sure])) == {0, 1, 4, 5, 6}
    np.testing.assert_array_equal(labels[sure], wanted[sure])


def test_bisenet_takes_the_side_from_the_face_and_not_from_the_class(parsers: dict[str, Parser]) -> None:
    swapped = {**CELEBA, "left-brow": 3, "right-brow": 2, "left-eye": 5, "right-eye": 4}
    for pose in POSES:
        classes = paint(swapped, pose, VIEW.side)
        [labels] = parsers["bisenet"]([PALETTE[classes]], [mesh(pose)])
        assert labels is not None
        sure = VIEW.inside(uniform(classes, 2).astype(np.uint8)).astype(bool)
        np.testing.assert_array_equal(labels[sure], VIEW.inside(_regions(classes, swapped))[sure])


def test_bisenet_glasses_are_what_they_cover_and_other_classes_background(parsers: dict[str, Parser]) -> None:
    pose = POSES[0]
    classes = paint(CELEBA, pose, VIEW.side)
    plain = classes.copy()
    classes[186:212, 150:298] = 6  # both eyes and the bridge of the nose behind one pane
    for band, value in enumerate([7, 8, 9, 14, 15, 16, 18]):
        classes[330:336, 120 + 30 * band : 150 + 30 * band] = value

    [labels] = parsers["bisenet"]([PALETTE[classes]], [mesh(pose)])

    assert labels is not None
    pane = (slice(76, 98), slice(40, 184))
    behind = _regions(plain, CELEBA)[112:336, 112:336]
    eyes = np.isin(behind, (2, 3)) & uniform(behind, 2)
    np.testing.assert_array_equal(labels[pane][eyes[pane]], behind[pane][eyes[pane]])
    assert set(np.unique(labels[80:94, 100:124])) == {REGION["skin"]}
    assert not labels[220:222, 14:216].any()


@pytest.mark.parametrize("backend", ["farl", "bisenet"])
def test_labels_do_not_depend_on_the_batch(files: dict[str, Path], parsers: dict[str, Parser], backend: str) -> None:
    rng = np.random.default_rng(5)
    table = {"farl": LAPA, "bisenet": CELEBA}[backend]
    pictures = [
        np.clip(PALETTE[paint(table, pose, VIEW.side)] + rng.normal(0, 25, (448, 448, 3)), 0, 255).astype(np.uint8)
        for pose in POSES
    ]
    meshes = [mesh(pose) for pose in POSES]
    for array in pictures + meshes:
        array.flags.writeable = False  # as they come out of an object store
    kind = {"farl": FarlParser, "bisenet": BisenetParser}[backend]

    whole = parsers[backend](pictures, meshes)
    singly = [parsers[backend]([picture], [points])[0] for picture, points in zip(pictures, meshes, strict=True)]
    by_three = kind(files[backend], VIEW, batch=3)(pictures, meshes)
    backwards = parsers[backend](pictures[::-1], meshes[::-1])[::-1]

    assert parsers[backend]([], []) == []
    for one, two, three, four in zip(whole, singly, by_three, backwards, strict=True):
        assert one is not None
        for other in (two, three, four):
            np.testing.assert_array_equal(one, other)


def test_an_onnx_file_with_a_fixed_batch_is_fed_one_by_one(tmp_path: Path, parsers: dict[str, Parser]) -> None:
    fixed = BisenetParser(write_bisenet(tmp_path / "fixed.onnx", batch=1), VIEW)
    pictures = [PALETTE[paint(CELEBA, pose, VIEW.side)] for pose in POSES]
    meshes = [mesh(pose) for pose in POSES]
    for one, other in zip(fixed(pictures, meshes), parsers["bisenet"](pictures, meshes), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backend", ["farl", "bisenet"])
def test_a_parse_without_a_face_is_none(parsers: dict[str, Parser], backend: str) -> None:
    table = {"farl": LAPA, "bisenet": CELEBA}[backend]
    face = PALETTE[paint(table, POSES[0], VIEW.side)]
    points = mesh(POSES[0])

    labels = parsers[backend]([np.zeros_like(face), face, np.full_like(face, PALETTE[table["hair"]])], [points] * 3)

    assert labels[0] is None
    assert labels[1] is not None
    assert labels[2] is None


@pytest.mark.parametrize("backend", ["farl", "bisenet"])
def test_a_parser_needs_its_file(backend: str, tmp_path: Path, models: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=rf"parser={backend} .*preprocess\.models\.{backend}=PATH"):
        model_files(_config(parser=backend))
    with pytest.raises(UsageError, match=rf"preprocess\.models\.{backend}: there is no file .*gone"):
        model_files(_config(parser=backend, models={backend: str(tmp_path / "gone")}))


@pytest.mark.parametrize(
    ("backend", "wrong"),
    [
        ("farl", "text"),
        ("farl", "empty"),
        ("farl", "bisenet"),
        ("farl", "19 classes"),
        ("bisenet", "text"),
        ("bisenet", "empty"),
        ("bisenet", "farl"),
        ("bisenet", "11 classes"),
        ("bisenet", "256 pixels"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    backend: str, wrong: str, tmp_path: Path, files: dict[str, Path], models: dict[str, Path]
) -> None:
    path = tmp_path / "wrong.bin"
    match wrong:
        case "text":
            path.write_text("<html>404: Not Found</html>")
        case "empty":
            path.touch()
        case "19 classes":
            write_farl(path, classes=19)
        case "11 classes":
            write_bisenet(path, classes=11)
        case "256 pixels":
            write_bisenet(path, side=256)
        case other:
            path = files[other]
    cfg = _config(parser=backend, models={backend: str(path)})

    with pytest.raises(MarlinError) as caught:
        load_parser(cfg, model_files(cfg))

    line = str(caught.value)
    assert line.startswith(f"preprocess.models.{backend}: {path} ")
    assert "\n" not in line


def test_farl_says_when_there_is_no_gpu(files: dict[str, Path], models: dict[str, Path]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    cfg = _config(parser="farl", models={"farl": str(files["farl"])})
    with pytest.raises(MarlinError, match="no CUDA device"):
        load_parser(cfg, model_files(cfg), device="cuda")


@pytest.mark.parametrize("backend", ["farl", "bisenet"])
def test_only_the_files_in_use_count(files: dict[str, Path], models: dict[str, Path], backend: str) -> None:
    chosen = ModelFilesConfig(farl=str(files["farl"]), bisenet=str(files["bisenet"]), hair="/no/hair", person="/no")
    cfg = PreprocessConfig(parser=backend, models=chosen)

    used = describe(model_files(cfg))

    assert [model["name"] for model in used] == ["scrfd", "face_landmark", backend]
    assert used[-1] == {"name": backend, "file": files[backend].name, "sha256": sha256_file(files[backend])}
    assert load_parser(cfg, model_files(cfg)).name == parser_name(cfg) == backend
    assert [model.name for model in model_files(PreprocessConfig())] == [
        "scrfd",
        "face_landmark",
        "selfie_segmentation",
    ]


def test_a_wide_margin_is_its_own_context(files: dict[str, Path], models: dict[str, Path]) -> None:
    cfg = _config(parser="farl", margin=0.5, models={"farl": str(files["farl"])})
    assert View.of(cfg) == View(224, 0)
    pose = Pose(112, 112, 110)
    classes = paint(LAPA, pose, 224)
    [labels] = load_parser(cfg, model_files(cfg))([PALETTE[classes]], [mesh(pose)])
    assert labels is not None
    sure = uniform(classes, 2)
    np.testing.assert_array_equal(labels[sure], _regions(classes, LAPA)[sure])
