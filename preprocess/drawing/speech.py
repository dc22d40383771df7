"""A speech-like signal: syllables with pauses, the sound of their vowels, and the mouth that would make it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.arrays import Floats
from preprocess.decode.audio import RATE
from preprocess.drawing import FPS

Sound = NDArray[np.float32]

CONSONANTS = "bdgklmnprst"


@dataclass(frozen=True)
class Vowel:
    """How a vowel sounds and looks.

    Attributes:
        formants: first two, in Hz.
        opening: of the mouth, 0 to 1; louder, too, where it is wider.
        width: of the mouth, 0 (round) to 1 (spread).
    """

    formants: tuple[float, float]
    opening: float
    width: float


VOWELS: dict[str, Vowel] = {
    "a": Vowel((750.0, 1250.0), 1.0, 0.55),
    "e": Vowel((500.0, 1900.0), 0.7, 0.85),
    "i": Vowel((300.0, 2300.0), 0.5, 1.0),
    "o": Vowel((480.0, 900.0), 0.8, 0.2),
    "u": Vowel((320.0, 750.0), 0.55, 0.0),
}

_SYLLABLE = (0.2, 0.34)
_PAUSE = (0.16, 0.4)
_PAUSES = 0.4
_LONGEST_WORD = 3
_BANDWIDTH, _HIGHEST = 140.0, 3000.0
_LOUDNESS = 0.25
_HISS = 0.002
_BURSTS = "kpst"
_BURST, _BURST_SECONDS = 0.1, 0.03
_CLOSED_WIDTH = 0.5


@dataclass(frozen=True)
class Syllable:
    """A consonant and a vowel, from second `start` for `seconds`; `stress` is 0 to 1."""

    letters: str
    start: float
    seconds: float
    stress: float

    @property
    def vowel(self) -> Vowel:
        """Its vowel."""
        return VOWELS[self.letters[-1]]


@dataclass(frozen=True)
class Utterance:
    """Words of syllables, in the order of time."""

    words: tuple[tuple[Syllable, ...], ...] = ()

    @property
    def text(self) -> str:
        """The transcript in capitals, as LRS2 has them."""
        return " ".join("".join(syllable.letters for syllable in word) for word in self.words).upper()

    @property
    def syllables(self) -> list[Syllable]:
        """All of them in order."""
        return [syllable for word in self.words for syllable in word]


def speak(dice: np.random.Generator, seconds: float) -> Utterance:
    """Something to say that takes at most so long, by chance."""
    words: list[tuple[Syllable, ...]] = []
    clock = float(dice.uniform(*_PAUSE)) / 2
    while True:
        word = []
        for _ in range(dice.integers(1, _LONGEST_WORD + 1)):
            letters = CONSONANTS[dice.integers(len(CONSONANTS))] + "aeiou"[dice.integers(5)]
            length = float(dice.uniform(*_SYLLABLE))
            word.append(Syllable(letters, clock, length, float(dice.uniform(0.7, 1.0))))
            clock += length
        if clock > seconds:
            return Utterance(tuple(words))
        words.append(tuple(word))
        if dice.random() < _PAUSES:
            clock += float(dice.uniform(*_PAUSE))


def envelope(said: Utterance, times: Floats) -> Floats:
    """Loudness 0 to 1 at some seconds (n,): zero between syllables."""
    level = np.zeros(len(times))
    for syllable in said.syllables:
        # A syllable is as long as its letters are heard; its neighbours begin where it ends.
        phase = (times - syllable.start) / syllable.seconds
        inside = (phase > 0) & (phase < 1)
        level[inside] = syllable.stress * syllable.vowel.opening * np.sin(np.pi * phase[inside]) ** 2
    return level


def mouth(said: Utterance, frames: int) -> tuple[Floats, Floats]:
    """Opening (frames,), 0 to 1, and width (frames,), 0 to 1, of the mouth: means over the time of each frame."""
    inner = 8
    times = (np.arange(frames * inner) + 0.5) / (FPS * inner)
    opening = envelope(said, times).reshape(frames, inner).mean(axis=1)
    middles = (np.arange(frames) + 0.5) / FPS
    knots = [(0.0, _CLOSED_WIDTH)]
    for syllable in said.syllables:
        knots.append((syllable.start + syllable.seconds / 2, syllable.vowel.width))
    knots.append((frames / FPS, _CLOSED_WIDTH))
    at, width = np.array(knots).T
    return opening, np.interp(middles, at, width)


def sound(said: Utterance, frames: int, pitch: float, dice: np.random.Generator) -> Sound:
    """The sound of it, mono at 16 kHz, as long as the frames.

    Harmonics of a wandering pitch, each as strong as the vowel's formants are near; a burst of noise where a consonant
    is. Its loudness is the envelope, whatever the vowel.
    """
    times = np.arange(round(frames * RATE / FPS)) / RATE
    hiss = dice.standard_normal(len(times))
    spoken = envelope(said, times) * _voice(said, times, pitch, dice) + _bursts(said, times) * hiss
    heard: Sound = (_LOUDNESS * spoken + _HISS * hiss).astype(np.float32)
    return heard


def _voice(said: Utterance, times: Floats, pitch: float, dice: np.random.Generator) -> Floats:
    """A voice without pause, of the same power all the time."""
    if not said.words:
        return np.zeros(len(times))
    middles = [syllable.start + syllable.seconds / 2 for syllable in said.syllables]
    formants = [
        np.interp(times, middles, heard) for heard in zip(*(s.vowel.formants for s in said.syllables), strict=True)
    ]
    glide = pitch * (1 + 0.06 * np.sin(2 * np.pi * (0.7 * times + dice.random())))
    phase = 2 * np.pi * np.cumsum(glide) / RATE
    voice, power = np.zeros(len(times)), np.full(len(times), 1e-6)
    for number in range(1, int(_HIGHEST / pitch)):
        strength = 0.02 + sum(np.exp(-(((number * glide - formant) / _BANDWIDTH) ** 2)) for formant in formants)
        voice += strength * np.sin(number * phase)
        power += strength**2 / 2
    even: Floats = voice / np.sqrt(power)
    return even


def _bursts(said: Utterance, times: Floats) -> Floats:
    """Strength of the noise of consonants."""
    strength = np.zeros(len(times))
    for syllable in said.syllables:
        if syllable.letters[0] in _BURSTS:
            at = (times >= syllable.start) & (times < syllable.start + _BURST_SECONDS)
            strength[at] = _BURST * syllable.stress
    return strength
