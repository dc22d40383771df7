"""Mel spectrograms against librosa's, and the windows of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.lipsync.mel import COLUMNS, FRAMES, MELS, SILENCE, frame_windows, mel_filters, mel_spectrogram, mel_windows
from preprocess.decode.audio import RATE


def chirp(samples: int = 6000) -> np.ndarray:
    """A tone that rises, and a square wave."""
    t = np.arange(samples) / RATE
    return 0.4 * np.sin(2 * np.pi * (200 * t + 3000 * t**2)) * np.minimum(1, 4 * t) + 0.05 * np.sign(
        np.sin(2 * np.pi * 7 * t)
    )


# Made once by librosa 0.11.0 as Wav2Lip asks it: lfilter([1, -0.97]), stft(n_fft=800, hop_length=200, win_length=800,
# pad_mode="reflect"), filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600), a reference of 20 dB, a floor of
# -100 dB, ±4. Bands 0, 10, …, 70 of columns 0, 5, …, 30.
GOLDEN = [
    [-1.33275, -1.27735, -2.11079, -4.00000, -4.00000, -4.00000, -0.12278],
    [-1.34581, -0.78434, -2.45515, -4.00000, -4.00000, -4.00000, -0.08430],
    [-1.36147, -1.53750, -0.19442, -4.00000, -4.00000, -4.00000, -0.03632],
    [-1.40190, -1.52883, -2.19072, 0.56155, -4.00000, -4.00000, 0.08516],
    [-1.49212, -1.52405, -2.45335, -3.66374, 2.50219, -2.85101, 0.39498],
    [-1.72508, -1.51707, -2.44881, -4.00000, -4.00000, -3.40862, 1.84218],
    [-2.70716, -1.52169, -2.45348, -4.00000, -4.00000, -4.00000, -0.09974],
    [-1.80437, -1.52405, -2.45590, -4.00000, -4.00000, -4.00000, -0.72835],
]
SUMS = [-132.105, -105.890, -161.356, -266.469, -273.095, -278.771, 4.586]  # of each of those columns, over all bands


def test_spectrogram_is_that_of_librosa() -> None:
    mel_ML = mel_spectrogram(chirp())
    assert mel_ML.shape == (MELS, 31)
    np.testing.assert_allclose(mel_ML[::10, ::5], GOLDEN, atol=1e-4)
    np.testing.assert_allclose(mel_ML[:, ::5].sum(0), SUMS, atol=1e-2)


def test_silence_is_the_floor_and_loud_noise_the_ceiling() -> None:
    assert (mel_spectrogram(np.zeros(RATE)) == SILENCE).all()
    noise = 1e6 * np.random.default_rng(0).standard_normal(RATE)
    assert (mel_spectrogram(noise) == -SILENCE).all()


@pytest.mark.parametrize("samples", [1, 199, 200, 799, 801])
def test_short_sounds_have_their_columns(samples: int) -> None:
    mel_ML = mel_spectrogram(np.full(samples, 0.1))
    assert mel_ML.shape == (MELS, samples // 200 + 1)
    assert np.isfinite(mel_ML).all()


def test_filters_have_one_area_and_a_peak_each() -> None:
    filters_MK = mel_filters()
    assert (np.diff(filters_MK.argmax(1)) >= 0).all()
    assert filters_MK[40:].sum(1) * RATE / 800 == pytest.approx(np.ones(MELS - 40), rel=0.05)


def numbered(columns: int) -> np.ndarray:
    """A spectrogram whose column c is c everywhere."""
    return np.broadcast_to(np.arange(columns, dtype=np.float32), (MELS, columns))


@given(columns=st.integers(1, 400), first=st.integers(-20, 200))
def test_a_window_begins_with_its_frame_and_is_silent_outside_of_the_sound(columns: int, first: int) -> None:
    [window_MS] = mel_windows(numbered(columns), np.array([first]))
    begin = (80 * first) // 25
    expected = [c if 0 <= c < columns else SILENCE for c in range(begin, begin + COLUMNS)]
    assert window_MS.shape == (MELS, COLUMNS)
    assert window_MS[0].tolist() == window_MS[-1].tolist() == expected


def test_the_window_around_a_frame_is_that_of_five_frames_with_it_in_the_middle() -> None:
    frames = np.arange(50)
    around, begins = frame_windows(numbered(160), frames), mel_windows(numbered(160), frames)
    np.testing.assert_array_equal(around[FRAMES // 2 :], begins[: -(FRAMES // 2)])
