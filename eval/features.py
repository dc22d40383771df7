"""Features of sliding windows: every track of a dataset through one or more embedders, each frame decoded once.

Shapes: B windows of a batch, W windows in all, T frames, S×S pixels, C channels, D width of a feature.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from eval.sequences import FrameSequence, read_windows, windows
from pipeline.storage import Store
from train.model import MaskedAutoencoder

Embedder = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(B, T, S, S, 3) RGB to (B, D)."""

PIXEL_SIDE = 8


@dataclass(frozen=True)
class WindowSpec:
    """Length, frame distance and stride of sliding windows, and how many go through an embedder at once."""

    clip: int
    rate: int
    stride: int
    batch: int


@dataclass(frozen=True)
class WindowFeatures:
    """Features by embedder name, (W, D) each, and the sequence that each window comes from."""

    features: Mapping[str, NDArray[np.float32]]
    owners: tuple[FrameSequence, ...]


def best_device() -> torch.device:
    """The accelerator if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_clips(frames_BTHWC: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """RGB bytes to the float clips (B, C, T, H, W) in [0, 1] that the model takes."""
    return torch.from_numpy(frames_BTHWC).to(device).permute(0, 4, 1, 2, 3).float().div_(255.0)


def model_embedder(model: MaskedAutoencoder) -> Embedder:
    """Pooled features of a frozen encoder: the norm of the mean token, as published."""
    model = model.eval().to(best_device())
    device = next(model.parameters()).device

    def embed(frames_BTHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            features_BD = model.encode(to_clips(frames_BTHWC, device), pool=True)
        out: NDArray[np.float32] = features_BD.float().cpu().numpy()
        return out

    return embed


def pixel_embedder(frames_BTHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Baseline without learning: the window's mean frame, grey, shrunk to 8×8, values in [0, 1]."""
    means = frames_BTHWC.mean(axis=1, dtype=np.float32)
    side = (PIXEL_SIDE, PIXEL_SIDE)
    small = [
        cv2.resize(cv2.cvtColor(mean, cv2.COLOR_RGB2GRAY), side, interpolation=cv2.INTER_AREA).ravel() for mean in means
    ]
    return np.stack(small).astype(np.float32) / 255.0


def extract(
    store: Store,
    sequences: Sequence[FrameSequence],
    embedders: Mapping[str, Embedder],
    spec: WindowSpec,
    progress: bool = True,
) -> WindowFeatures:
    """Features of all windows of some sequences.

    Args:
        store: the dataset.
        sequences: what to read (`eval.sequences.frame_sequences`).
        embedders: every one sees every window.
        spec: the windows.
        progress: show a bar.

    Raises:
        MarlinError: a frame can't be read or decoded.
    """
    plans = [windows(sequence.frames, spec.clip, spec.rate, spec.stride) for sequence in sequences]
    owners = [sequence for sequence, plan in zip(sequences, plans, strict=True) for _ in plan]
    clips = (clip for s, plan in zip(sequences, plans, strict=True) for clip in read_windows(store, s, plan))
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in embedders}
    with tqdm(total=len(owners), desc="features", unit="window", disable=not progress) as bar:
        for batch_BTHWC in _batches(clips, spec.batch):
            for name, embed in embedders.items():
                rows[name].append(embed(batch_BTHWC))
            bar.update(len(batch_BTHWC))
    return WindowFeatures({name: np.concatenate(parts) for name, parts in rows.items()}, tuple(owners))


def _batches(clips: Iterator[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    while batch := list(islice(clips, size)):
        yield np.stack(batch)
