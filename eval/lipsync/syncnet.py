"""The sync network of Wav2Lip: whether the lips of five frames go with what is heard meanwhile.

Shapes: B clips, T frames of a clip, S×S pixels, M×S a window of the spectrogram, D width of an embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.lipsync.blocks import ConvBlock, residuals, sound_encoder
from eval.lipsync.mel import COLUMNS, FRAMES, MELS

SIDE = 96
"""Side of the faces that it takes, in pixels; it sees their lower half."""

CHANNELS = 32
"""Channels of the first layers of the published network."""


class SyncNet(nn.Module):
    """Embeds lips and sound so that those that go together have the same direction (section 3.2 of the paper).

    Args:
        channels: of the first layers; with 32 the published `lipsync_expert.pth` fits, by the names of its tensors too.
    """

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.channels = channels
        c = channels
        self.face_encoder = nn.Sequential(
            ConvBlock(3 * FRAMES, c, 7, 1, 3),
            ConvBlock(c, 2 * c, 5, (1, 2), 1),
            *residuals(2 * c, 2),
            ConvBlock(2 * c, 4 * c, 3, 2, 1),
            *residuals(4 * c, 3),
            ConvBlock(4 * c, 8 * c, 3, 2, 1),
            *residuals(8 * c, 2),
            ConvBlock(8 * c, 16 * c, 3, 2, 1),
            *residuals(16 * c, 2),
            ConvBlock(16 * c, 16 * c, 3, 2, 1),
            ConvBlock(16 * c, 16 * c, 3),
            ConvBlock(16 * c, 16 * c, 1),
        )
        self.audio_encoder = sound_encoder(c, (2, 2, 2, 2))

    def embed_faces(self, faces_BT3SS: Tensor) -> Tensor:
        """Unit vectors (B, D) of clips of five frames of whole faces, RGB in [0, 1], of any size."""
        clips, frames = faces_BT3SS.shape[:2]
        faces = faces_BT3SS.flatten(0, 1)
        if faces.shape[-1] != SIDE:
            faces = F.interpolate(faces, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        # The published weights know frames in OpenCV's order of colours.
        lower = faces[:, :, SIDE // 2 :].flip(1).reshape(clips, 3 * frames, SIDE // 2, SIDE)
        found: Tensor = self.face_encoder(lower)
        return F.normalize(found.flatten(1), dim=1)

    def embed_sound(self, mel_BMS: Tensor) -> Tensor:
        """Unit vectors (B, D) of windows of the spectrogram."""
        found: Tensor = self.audio_encoder(mel_BMS.view(-1, 1, MELS, COLUMNS))
        return F.normalize(found.flatten(1), dim=1)


def sync_loss(lips_FND: Tensor, sound_FND: Tensor) -> Tensor:
    """Binary cross-entropy of the cosine, read as the probability that both go together (equation 1).

    The paper draws a true or a false sound for each lips, false ones from another moment of the same video. Here the
    lips of every moment of a face meet the sounds of all of them; true and false pairs weigh the same, as there.

    Args:
        lips_FND: unit vectors of N moments of F faces.
        sound_FND: those of the sounds of the same moments.
    """
    # Embeddings end in a ReLU: no cosine is negative.
    cosine_FNN = (lips_FND @ sound_FND.transpose(1, 2)).float().clamp(0, 1)
    true = torch.eye(cosine_FNN.shape[-1], device=cosine_FNN.device).expand_as(cosine_FNN)
    loss_FNN = _cross_entropy(cosine_FNN, true)
    return (loss_FNN[true == 1].mean() + loss_FNN[true == 0].mean()) / 2


def expert_loss(expert: SyncNet, faces_BT3SS: Tensor, mel_BNMS: Tensor) -> Tensor:
    """How far generated lips are from going with the sound that drove them, by a frozen expert (equation 2).

    Args:
        expert: in evaluation mode, its weights need no gradients.
        faces_BT3SS: generated faces, T of `FRAMES` or more.
        mel_BNMS: windows that begin with the frames 0, 5, 10, …: one for each whole five frames.
    """
    count = mel_BNMS.shape[1]
    fives = faces_BT3SS[:, : count * FRAMES].reshape(-1, FRAMES, *faces_BT3SS.shape[2:])
    cosine = (expert.embed_faces(fives) * expert.embed_sound(mel_BNMS.flatten(0, 1))).sum(1).float().clamp(0, 1)
    return _cross_entropy(cosine, torch.ones_like(cosine)).mean()


def _cross_entropy(cosine: Tensor, true: Tensor) -> Tensor:
    """Of each cosine; NaN where it is, which PyTorch's function would refuse in words that say nothing to a user."""
    return F.binary_cross_entropy(cosine.nan_to_num(), true, reduction="none").masked_fill(cosine.isnan(), torch.nan)
