"""Whole videos through generator and judge.

Shapes: F frames, S×S pixels, M×L a spectrogram, D width of an embedding.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from eval.lipsync.draws import to_faces, to_mel
from eval.lipsync.faces import Image
from eval.lipsync.generator import Generator
from eval.lipsync.mel import FRAMES, Mel, frame_windows, mel_windows
from eval.lipsync.sync_scores import Vectors
from eval.lipsync.syncnet import SyncNet
from eval.sequences import windows

_AT_ONCE = 80  # frames


def redraw(generator: Generator, frames_FSS3: Image, mel_ML: Mel, begin: int = 0) -> Image:
    """The frames with lips that go with a sound: (F, S, S, 3) RGB bytes.

    Every frame is drawn with a frame half of the video away for a reference. In a video of two clips or more, no clip
    is drawn with frames of its own, whose lips would show what is to be found. Clips follow each other; the last one is
    anchored at the end.

    Args:
        generator: in evaluation mode.
        frames_FSS3: RGB bytes at the generator's size.
        mel_ML: the sound.
        begin: which frame of the sound, at 25 a second, the first one is.
    """
    frames, clip = len(frames_FSS3), generator.form.frames
    device = next(generator.parameters()).device
    index_WT = windows(frames, clip, 1, clip)
    out = np.empty_like(frames_FSS3)
    size = max(1, _AT_ONCE // clip)
    with torch.inference_mode():
        for first in range(0, len(index_WT), size):
            part_WT = index_WT[first : first + size]
            around = to_mel([frame_windows(mel_ML, begin + index_T) for index_T in part_WT], device)
            both = (
                to_faces([frames_FSS3[i] for i in index], device) for index in (part_WT, reference_of(part_WT, frames))
            )
            drawn_WT3SS = generator(*both, around).mul(255).round().byte()
            out[part_WT] = drawn_WT3SS.permute(0, 1, 3, 4, 2).cpu().numpy()
    return out


def reference_of(index: NDArray[np.int64], frames: int) -> NDArray[np.int64]:
    """The frames that are references of some frames of a video."""
    return (index + frames // 2) % frames


def embed_lips(network: SyncNet, frames_FSS3: Image) -> Vectors:
    """Embeddings (F - 4, D) of the lips, one for each frame that five frames begin with."""
    device = next(network.parameters()).device
    starts = np.arange(len(frames_FSS3) - FRAMES + 1)
    parts = []
    with torch.inference_mode():
        for first in range(0, len(starts), _AT_ONCE):
            fives = starts[first : first + _AT_ONCE, None] + np.arange(FRAMES)
            parts.append(network.embed_faces(to_faces([frames_FSS3[i] for i in fives], device)).float().cpu().numpy())
    return np.concatenate(parts)


def embed_sound(network: SyncNet, mel_ML: Mel, frames: int) -> Vectors:
    """Embeddings (F - 4, D) of a sound, one for each frame that five of so many frames begin with."""
    device = next(network.parameters()).device
    cut = to_mel([mel_windows(mel_ML, np.arange(frames - FRAMES + 1))], device)[0]
    with torch.inference_mode():
        found: Vectors = network.embed_sound(cut).float().cpu().numpy()
    return found
