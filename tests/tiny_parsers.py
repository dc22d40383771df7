"""Tiny networks with the contracts of the production parsers."""

from pathlib import Path

import numpy as np
import onnx
import torch
from drawn_faces import PALETTE
from onnx import TensorProto, helper, numpy_helper

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class _Colours(torch.nn.Module):
    """Logits that are highest for the class whose colour a pixel has; a second output as FaRL's network has."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        colours = torch.from_numpy(PALETTE[:classes] / 255.0).float()
        self.nearest = torch.nn.Conv2d(3, classes, 1)
        self.nearest.weight.data = 2 * colours[:, :, None, None]
        self.nearest.bias.data = -(colours**2).sum(1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 20 * self.nearest(x), x.mean()


class _Painted(torch.nn.Module):
    """Always the same class map, whatever it sees."""

    def __init__(self, classes: np.ndarray, count: int) -> None:
        super().__init__()
        planes = torch.nn.functional.one_hot(torch.from_numpy(classes).long(), count).permute(2, 0, 1)
        self.register_buffer("planes", planes.float()[None])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.planes.expand(x.shape[0], -1, -1, -1), x.mean()


def write_farl(path: Path, classes: int = 11) -> Path:
    """A TorchScript network that knows classes by their colour."""
    torch.jit.script(_Colours(classes).eval()).save(str(path))
    return path


def write_painted_farl(path: Path, classes: np.ndarray) -> Path:
    """A TorchScript network that gives one class map (H, W)."""
    torch.jit.script(_Painted(classes, 11).eval()).save(str(path))
    return path


def farl_places() -> tuple[np.ndarray, np.ndarray]:
    """Column and row (448, 448), in the aligned square of 512 pixels, of what each pixel of FaRL's input shows."""
    warped = (np.indices((448, 448)) + 0.5) / 224 - 1
    beyond = (np.abs(warped) - 0.2) / 0.8
    straight = np.where(beyond <= 0, warped, np.sign(warped) * (np.arctanh(np.clip(beyond, 0, 0.999)) * 0.8 + 0.2))
    rows, columns = (straight + 1) * 256
    return columns, rows


def write_bisenet(path: Path, classes: int = 19, batch: int | str = "batch", side: int = 512) -> Path:
    """An ONNX network that knows classes by their colour; its first output is an auxiliary one of low resolution."""
    colours = PALETTE[:classes] / 255.0
    weight = (20 * 2 * colours * DEVIATION)[:, :, None, None].astype(np.float32)
    bias = (20 * (2 * colours @ MEAN - (colours**2).sum(1))).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "weight", "bias"], ["output"]),
        helper.make_node("AveragePool", ["output"], ["aux"], kernel_shape=[8, 8], strides=[8, 8]),
    ]
    _save(path, nodes, {"weight": weight, "bias": bias}, classes=classes, batch=batch, side=side)
    return path


def write_painted_bisenet(path: Path, classes: np.ndarray) -> Path:
    """An ONNX network that gives one class map (512, 512)."""
    planes = (np.arange(19)[:, None, None] == classes).astype(np.float32)[None]
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "planes"], ["output"]),
        helper.make_node("AveragePool", ["output"], ["aux"], kernel_shape=[8, 8], strides=[8, 8]),
    ]
    _save(path, nodes, {"planes": planes, "zero": np.zeros(1, np.float32)}, classes=19, batch="batch", side=512)
    return path


def _save(path: Path, nodes: list, constants: dict, *, classes: int, batch: int | str, side: int) -> None:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, side, side])],
        [
            helper.make_tensor_value_info("aux", TensorProto.FLOAT, [batch, classes, side // 8, side // 8]),
            helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, classes, side, side]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))


def write_hair(path: Path, colour: tuple[int, int, int]) -> Path:
    """An ONNX network with the contract of MediaPipe's hair segmentation: hair is what has nearly this colour."""
    weight = np.zeros((2, 4, 1, 1), np.float32)
    weight[1, :3, 0, 0] = 2 * np.array(colour) / 255
    # Positive up to a distance of 0.2 from the colour, for colours of one length.
    bias = np.array([0, -2 * (np.array(colour) ** 2).sum() / 255**2 + 0.04], np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "weight", "bias"], ["output"])],
        "hair",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4, 512, 512])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 2, 512, 512])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path
