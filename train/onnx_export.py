"""The encoder as an ONNX file that maps clips to features, checked against PyTorch.

Shapes: B clips, C channels, T frames, H×W pixels, D width of a feature.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import MarlinError
from pipeline.text import size_text
from train.model import Geometry, MaskedAutoencoder
from train.sizes import CHANNELS

INPUT, OUTPUT = "clips", "features"
OPSET = 17
"""The first with layer norms, so that most runtimes read it."""

TOLERANCE = 1e-4
"""Largest difference between a feature of ONNX Runtime and of PyTorch."""

LARGEST = 2_000_000_000
"""Bytes of weights at most: one file of the format ends at 2 GiB, and ours is one file."""

_CHECKED_BATCHES = (1, 3)
_TRACED_BATCH = 2


class _PooledEncoder(nn.Module):
    """The part of the network that gives features."""

    def __init__(self, model: MaskedAutoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips_BCTHW: Tensor) -> Tensor:
        return self.model.encode(clips_BCTHW, pool=True)


def input_shape(geometry: Geometry) -> tuple[str, int, int, int, int]:
    """Shape of the file's input, clips in [0, 1] as float32."""
    return ("batch", CHANNELS, geometry.frames, geometry.size, geometry.size)


def write_onnx(path: Path, model: MaskedAutoencoder) -> None:
    """Write the encoder, any number of clips at once to the norm of their mean token (`MaskedAutoencoder.encode`).

    Args:
        path: file to write.
        model: on the CPU; its decoder is left out.

    Raises:
        MarlinError: the weights don't fit into one file.
    """
    size = sum(part.numel() * part.element_size() for part in (*model.embed.parameters(), *model.encoder.parameters()))
    if size > LARGEST:
        raise MarlinError(
            f"the encoder's weights take {size_text(size)}, one ONNX file holds {size_text(LARGEST)}: "
            "export another format"
        )
    batch = {0: input_shape(model.geometry)[0]}
    with warnings.catch_warnings(), torch.no_grad():
        # The newer exporter needs packages of its own, and what tracing warns of does not depend on the batch.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _PooledEncoder(model.eval()),
            (_random_clips(model.geometry, _TRACED_BATCH),),
            str(path),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: batch, OUTPUT: batch},
            opset_version=OPSET,
            dynamo=False,
        )


def check_onnx(path: Path, model: MaskedAutoencoder) -> None:
    """Compare a file with the network it was made of, on random clips, one and several at once.

    Args:
        path: what `write_onnx` wrote.
        model: on the CPU.

    Raises:
        MarlinError: their features differ by more than `TOLERANCE`.
    """
    session = open_onnx(path)
    for batch in _CHECKED_BATCHES:
        clips_BCTHW = _random_clips(model.geometry, batch)
        with torch.inference_mode():
            expected_BD = model.eval().encode(clips_BCTHW, pool=True).numpy()
        difference = float(np.abs(run_onnx(session, clips_BCTHW.numpy()) - expected_BD).max())
        if not difference <= TOLERANCE:  # a NaN is neither
            raise MarlinError(
                f"{path.name}: ONNX Runtime's features of {batch} random clips differ from PyTorch's by "
                f"{difference:.1e}, more than {TOLERANCE:g}: try another version of onnxruntime, or another format"
            )


def open_onnx(path: Path, threads: int = 0) -> Any:
    """An ONNX Runtime session of a file on the CPU; 0 threads are one for each core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_onnx(session: Any, clips_BCTHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (B, D) of clips in [0, 1]."""
    features_BD: NDArray[np.float32] = session.run([OUTPUT], {INPUT: clips_BCTHW})[0]
    return features_BD


def _random_clips(geometry: Geometry, batch: int) -> Tensor:
    return torch.rand(batch, *input_shape(geometry)[1:], generator=torch.Generator().manual_seed(batch))
