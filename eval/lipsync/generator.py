"""The generator of Wav2Lip: draws the lower half of faces so that the lips go with a sound (section 3.3 of the paper).

Shapes: B clips, T frames, S×S pixels, M×C a window of the spectrogram, G = B × T frames of all clips.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from eval.lipsync.blocks import ConvBlock, UpBlock, residuals, sound_encoder
from eval.lipsync.encoders import STEPS, WIDTHS, ConvFaces, FaceEncoder, VideoFaces
from eval.lipsync.mel import FRAMES
from pipeline.config.evaluation import LipEncoder
from pipeline.errors import UsageError
from train.interop import is_encoder
from train.model import Geometry, MaskedAutoencoder, build_model

_UP = (4, 8, 16, 24, 32, 32)  # channels that the decoder makes at each scale, in channels of the first layer
_RESIDUALS = (2, 2, 2, 2, 2, 1)
_UNUSED = "faces.model."


@dataclass(frozen=True)
class Form:
    """All that a generator's shape depends on.

    Attributes:
        encoder: which face encoder.
        size: S.
        frames: T.
        channels: of the first layers; 16 as published.
        margin: by which faces were cut out wider (`preprocess.margin`).
        model, patch, normalize: of the masked autoencoder, where its encoder is used.
    """

    encoder: LipEncoder
    size: int
    frames: int
    channels: int
    margin: float
    model: str = ""
    patch: int = 0
    normalize: str = "none"

    def __post_init__(self) -> None:
        if self.size % STEPS:
            raise UsageError(f"faces of {self.size} pixels can't be halved five times: give a multiple of {STEPS}")
        if self.model and self.patch not in (4, 8, 16, 32):
            raise UsageError(f"model.patch={self.patch}: the generator takes encoders with patches of 4, 8, 16 or 32")

    def autoencoder(self) -> MaskedAutoencoder:
        """The masked autoencoder with fresh weights."""
        return build_model(self.model, Geometry(self.frames, self.size, self.patch), normalize=self.normalize)


class Generator(nn.Module):
    """Faces without their lower halves, faces of another moment, and sound to whole faces.

    Args:
        form: its shape.
        model: whose encoder it begins with; None where the form has no masked autoencoder, or one with fresh weights.
    """

    def __init__(self, form: Form, model: MaskedAutoencoder | None = None) -> None:
        super().__init__()
        self.form, c = form, form.channels
        self.sound = sound_encoder(2 * c, (2, 2, 2, 1))
        self.faces: nn.Module
        if form.model:
            self.faces = VideoFaces(model or form.autoencoder(), c)
        else:
            self.faces = ConvFaces(form.size, c)
        self.first = ConvBlock(32 * c, 32 * c, 1)
        given = 64 * c
        ups: list[nn.Module] = []
        for level in reversed(range(len(_UP))):
            out = c * _UP[level]
            first = form.size // STEPS if level == len(_UP) - 1 else 0
            up = UpBlock(given, out, first=first)
            ups.append(nn.Sequential(up, *residuals(out, _RESIDUALS[level])))
            given = out + c * WIDTHS[level]
        self.ups = nn.ModuleList(ups)
        self.last = nn.Sequential(ConvBlock(given, 2 * c, 3, 1, 1), nn.Conv2d(2 * c, 3, 1), nn.Sigmoid())

    def forward(self, target_BT3SS: Tensor, reference_BT3SS: Tensor, mel_BTMC: Tensor) -> Tensor:
        """Faces (B, T, 3, S, S) in [0, 1].

        Args:
            target_BT3SS: whole faces in [0, 1]; their lower halves are not looked at.
            reference_BT3SS: the same person at another moment.
            mel_BTMC: the sound around each frame (`eval.lipsync.mel.frame_windows`).
        """
        pyramid = cast(FaceEncoder, self.faces)(torch.cat([hide_lower(target_BT3SS), reference_BT3SS], dim=2))
        x = self.first(self.sound(mel_BTMC.flatten(0, 1)[:, None]))
        for up, features in zip(self.ups, reversed(pyramid[1:]), strict=True):
            x = up(torch.cat([x, features], dim=1))
        drawn: Tensor = self.last(torch.cat([x, pyramid[0]], dim=1))
        return drawn.view(target_BT3SS.shape)

    def weights(self) -> dict[str, Tensor]:
        """Its tensors by name, without the decoder of the masked autoencoder."""
        return {name: value for name, value in self.state_dict().items() if _is_used(name)}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what `weights` gave.

        Raises:
            RuntimeError: they are of another form.
        """
        unused = {name: value for name, value in self.state_dict().items() if not _is_used(name)}
        self.load_state_dict({**unused, **weights})


def hide_lower(faces_BT3SS: Tensor) -> Tensor:
    """Faces with their lower halves black."""
    upper = faces_BT3SS.clone()
    upper[..., faces_BT3SS.shape[-2] // 2 :, :] = 0
    return upper


def form_frames(encoder: LipEncoder, trained: int) -> int:
    """Frames of a clip: five, or for a vision transformer those it was trained with."""
    return FRAMES if encoder == "wav2lip" else trained


def _is_used(name: str) -> bool:
    return not name.startswith(_UNUSED) or is_encoder(name.removeprefix(_UNUSED))
