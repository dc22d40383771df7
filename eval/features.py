"""Features of sliding windows: every track of a dataset through one or more embedders, each frame decoded once.

Frames are decoded ahead on all cores, so that an encoder on a GPU need not wait for them.

Shapes: B windows of a batch, W windows in all, T frames, S×S pixels, C channels, D width of a feature.
"""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from eval.packed import can_pack, packed
from eval.sequences import FrameSequence, cut_windows, official_windows, read_frames, touched, windows
from pipeline.background import Background
from pipeline.storage import Store
from pipeline.workers import Workers, work_ahead
from train.model import MaskedAutoencoder

Embedder = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(B, T, S, S, 3) RGB to (B, D)."""

PIXEL_SIDE = 8
BATCHES_AHEAD = 2


@dataclass(frozen=True)
class WindowSpec:
    """Length, frame distance and stride of sliding windows, and how many go through an embedder at once.

    `official` are the windows of `marlin-pytorch` (`official_windows`) instead of all.
    """

    clip: int
    rate: int
    stride: int
    batch: int
    official: bool = False

    def plan(self, frames: int) -> NDArray[np.int64]:
        """Frame indices (W, T) of the windows over so many frames."""
        chosen = official_windows if self.official else windows
        return chosen(frames, self.clip, self.rate, self.stride)


@dataclass(frozen=True)
class WindowFeatures:
    """Features by embedder name, (W, D) each, and the sequence that each window comes from."""

    features: Mapping[str, NDArray[np.float32]]
    owners: tuple[FrameSequence, ...]


def best_device() -> torch.device:
    """The accelerator if there is one, by its number: threads of the loader are told it."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def to_clips(frames_BTHWC: torch.Tensor) -> torch.Tensor:
    """RGB bytes to the float clips (B, C, T, H, W) in [0, 1] that the model takes."""
    return frames_BTHWC.permute(0, 4, 1, 2, 3).float().div_(255.0)


def model_embedder(model: MaskedAutoencoder, dtype: torch.dtype = torch.float32, *, keep_seq: bool = False) -> Embedder:
    """Features of a frozen encoder.

    Args:
        model: is moved to the accelerator, where there is one.
        dtype: of weights and arithmetic.
        keep_seq: all normed tokens (B, N, D), instead of the norm of the mean token, as published.
    """
    model = model.eval().to(best_device(), dtype)
    device = next(model.parameters()).device
    if can_pack(model):
        model = packed(model)

    def embed(frames_BTHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            features = model.encode(to_clips(torch.from_numpy(frames_BTHWC).to(device)).to(dtype), pool=not keep_seq)
        out: NDArray[np.float32] = features.float().cpu().numpy()
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
    plans = [spec.plan(sequence.frames) for sequence in sequences]
    owners = [sequence for sequence, plan in zip(sequences, plans, strict=True) for _ in plan]
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in embedders}
    batches = Background(_batches(store, sequences, plans, spec.batch), BATCHES_AHEAD)
    with closing(batches), tqdm(total=len(owners), desc="features", unit="window", disable=not progress) as bar:
        for batch_BTHWC in batches:
            for name, embed in embedders.items():
                rows[name].append(embed(batch_BTHWC))
            bar.update(len(batch_BTHWC))
    return WindowFeatures({name: np.concatenate(parts) for name, parts in rows.items()}, tuple(owners))


def _batches(
    store: Store, sequences: Sequence[FrameSequence], plans: Sequence[NDArray[np.int64]], size: int
) -> Generator[NDArray[np.uint8], None, None]:
    threads = len(os.sched_getaffinity(0))
    pairs = list(zip(sequences, plans, strict=True))
    with closing(Workers(threads, "decode")) as pool:
        needed = ([sample] for sequence, plan in pairs for sample in touched(sequence, plan))
        decoded = (frames for [frames] in work_ahead(pool, partial(read_frames, store), needed, threads))
        clips = (clip for sequence, plan in pairs for clip in cut_windows(decoded, sequence, plan))
        while batch := list(islice(clips, size)):
            yield np.stack(batch)
