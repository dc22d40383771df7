"""Mel spectrograms as Wav2Lip makes them, and the windows of them that go with frames.

Shapes: N samples, M mel bands, L columns of a spectrogram, S columns of a window, F frames.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import ShortTimeFFT, lfilter
from scipy.signal.windows import hann

from preprocess.decode.audio import RATE, Sound

FPS = 25
"""Frames a second that lips are synchronised at."""

MELS = 80
COLUMNS = 16
"""Columns of a window: 0.2 seconds, the time of `FRAMES` frames."""

FRAMES = 5
"""Frames that the sync network sees at once."""

SILENCE = -4.0
"""The least value of a spectrogram; there is no sound before the first column and after the last."""

_WINDOW, _HOP = 800, 200
_LOWEST, _HIGHEST = 55.0, 7600.0
_PREEMPHASIS = 0.97
_BLOCK = 4096  # columns whose frequencies are held at once
_REFERENCE_DB, _RANGE_DB = 20.0, 100.0
_FAINTEST = 1e-5  # -100 dB
# Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz, which is mel 15, and logarithmic above.
_LINEAR_HZ, _KNEE_HZ = 200.0 / 3.0, 1000.0
_STEP = np.log(6.4) / 27.0

Mel = NDArray[np.float32]


def mel_spectrogram(sound: Sound) -> Mel:
    """Spectrogram (M, L) of mono sound (N,) at 16 kHz, values -4 (silence) to 4, 80 columns a second.

    Magnitudes of a centred Fourier transform of the pre-emphasised sound, in mel bands, in decibels less 20, from
    -100 dB on, scaled to ±4. Column c has its middle at sample 200 c; L = N // 200 + 1.
    """
    padded = np.pad(np.asarray(sound, np.float64), (0, max(0, _WINDOW - len(sound))))
    transform = ShortTimeFFT(hann(_WINDOW, sym=False), _HOP, RATE)
    columns = len(sound) // _HOP + 1
    emphasised, filters_MK = lfilter([1.0, -_PREEMPHASIS], [1.0], padded), mel_filters()
    mel_ML: Mel = np.empty((MELS, columns), np.float32)
    for first in range(0, columns, _BLOCK):
        last = min(first + _BLOCK, columns)
        heard_KL = np.abs(transform.stft(emphasised, first, last, padding="even"))
        decibels_ML = 20 * np.log10(np.maximum(_FAINTEST, filters_MK @ heard_KL)) - _REFERENCE_DB
        scaled_ML = -2 * SILENCE * (decibels_ML + _RANGE_DB) / _RANGE_DB + SILENCE
        mel_ML[:, first:last] = np.clip(scaled_ML, SILENCE, -SILENCE)
    return mel_ML


def mel_filters() -> NDArray[np.float64]:
    """Triangles (M, K) over the K frequencies of the transform, each of the same area: Slaney's."""
    edges = _hertz(np.linspace(_mel(_LOWEST), _mel(_HIGHEST), MELS + 2))
    frequencies_K = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequencies_K - left) / (middle - left)
    falling = (right - frequencies_K) / (right - middle)
    triangles: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)
    return triangles


def mel_windows(mel_ML: Mel, firsts_F: NDArray[np.int64]) -> Mel:
    """The window (F, M, S) that begins with each frame, silent where the sound has not begun or is over.

    Args:
        mel_ML: the spectrogram.
        firsts_F: frames at 25 a second; window f is as long as the frames f to f + 4.
    """
    begins_F = np.floor(firsts_F * (RATE / _HOP / FPS)).astype(np.int64)
    places_FS = begins_F[:, None] + np.arange(COLUMNS)
    inside_FS = (places_FS >= 0) & (places_FS < mel_ML.shape[1])
    picked_MFS = mel_ML[:, np.where(inside_FS, places_FS, 0)]
    picked_MFS[:, ~inside_FS] = SILENCE
    return picked_MFS.transpose(1, 0, 2)


def frame_windows(mel_ML: Mel, frames_F: NDArray[np.int64]) -> Mel:
    """The window (F, M, S) around each frame: what is heard during the two frames before it, it, and the two after."""
    return mel_windows(mel_ML, frames_F - FRAMES // 2)


def _mel(hertz: float) -> float:
    return hertz / _LINEAR_HZ if hertz < _KNEE_HZ else _KNEE_HZ / _LINEAR_HZ + float(np.log(hertz / _KNEE_HZ)) / _STEP


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    knee = _KNEE_HZ / _LINEAR_HZ
    hertz: NDArray[np.float64] = np.where(mel < knee, mel * _LINEAR_HZ, _KNEE_HZ * np.exp(_STEP * (mel - knee)))
    return hertz
