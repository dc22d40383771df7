"""The detector's input."""

from pathlib import Path

import numpy as np
import pytest
from insightface.model_zoo import get_model
from skimage.data import astronaut

from preprocess.faces.detect import Detector, input_blob


@pytest.mark.parametrize(("mean", "std"), [(127.5, 128.0), (0.0, 1.0)])
def test_the_network_sees_what_insightface_would_show_it(models: dict[str, Path], mean: float, std: float) -> None:
    net = get_model(str(models["scrfd"]), providers=["CPUExecutionProvider"])
    net.input_mean, net.input_std = mean, std
    picture = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
    np.testing.assert_array_equal(
        input_blob(mean, std, picture, (640, 640)), net._prepare_input_blob(picture, (640, 640))
    )


def test_a_face_is_found_as_insightface_finds_it(models: dict[str, Path]) -> None:
    net = get_model(str(models["scrfd"]), providers=["CPUExecutionProvider"])
    net.prepare(-1, det_thresh=0.5)
    boxes, _ = net.detect(np.ascontiguousarray(astronaut()[..., ::-1]))
    [face] = Detector(models["scrfd"], 0.5)(astronaut())
    np.testing.assert_allclose([*face.box, face.score], boxes[0], rtol=1e-6)
