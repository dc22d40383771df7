"""What a drawn face does from frame to frame: head, eyes, brows and mouth, by actions, emotions and speech."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from preprocess.arrays import Floats
from preprocess.drawing import FPS
from preprocess.drawing.speech import Utterance, mouth

ACTIONS: tuple[str, ...] = (
    "close_eyes",
    "frown",
    "head_wagging",
    "look_around",
    "nod",
    "shake_head",
    "smile",
    "talk",
    "turn",
    "wink",
    "yawn",
)
"""The actions of CelebV-HQ that are drawn, in the official order. Everybody blinks, which is not one of them."""

EMOTIONS: tuple[str, ...] = ("happy", "sad", "anger", "surprise", "disgust", "fear")
"""Those of CMU-MOSEI; each has an intensity of 0 to 3."""

STRONGEST = 3.0


@dataclass(frozen=True)
class Pose:
    """Where the head is: middle in sides of the picture, half height in sides of the picture, angles in radians.

    Roll turns clockwise, yaw to the right of the picture, pitch down.
    """

    x: float
    y: float
    scale: float
    roll: float
    yaw: float
    pitch: float

    def nearer(self, zoom: float) -> "Pose":
        """So many times as large, about where heads usually are."""
        x, y = (_PLACE[axis] + (value - _PLACE[axis]) * zoom for axis, value in enumerate((self.x, self.y)))
        return replace(self, x=x, y=y, scale=self.scale * zoom)


@dataclass(frozen=True)
class Face:
    """What the face does; 0 is at rest.

    Attributes:
        brow: height of the brows.
        brow_inner: height of their inner ends alone.
        left_lid, right_lid: opening of the eyes, 0 to 1.3; 1 at rest.
        gaze: of the irises, -1 (left of the picture) to 1.
        corner: of the mouth, up.
        stretch: width of the mouth.
        lip: height of the upper lip; the nose wrinkles with it.
        jaw: opening of the mouth that is no speech.
    """

    brow: float
    brow_inner: float
    left_lid: float
    right_lid: float
    gaze: float
    corner: float
    stretch: float
    lip: float
    jaw: float


@dataclass(frozen=True)
class Moment:
    """One frame of a performance; `opening` and `width` are those of the speaking mouth."""

    pose: Pose
    face: Face
    opening: float
    width: float


@dataclass(frozen=True)
class Script:
    """What is to be performed.

    Attributes:
        actions: some of `ACTIONS`; `talk` goes with something said.
        emotions: intensity by name.
        said: what the mouth says.
    """

    actions: frozenset[str]
    emotions: Mapping[str, float]
    said: Utterance


# What each emotion does to the face at its strongest.
_FACES: dict[str, dict[str, float]] = {
    "happy": {"brow": 0.15, "lids": -0.25, "corner": 1.0, "stretch": 0.3},
    "sad": {"brow": -0.1, "brow_inner": 0.9, "lids": -0.35, "corner": -0.9, "stretch": -0.15},
    "anger": {"brow": -0.6, "brow_inner": -0.9, "lids": -0.1, "corner": -0.35, "stretch": -0.1},
    "surprise": {"brow": 1.0, "lids": 0.35, "stretch": -0.45, "jaw": 0.6},
    "disgust": {"brow": -0.45, "brow_inner": -0.2, "lids": -0.45, "corner": -0.55, "lip": 1.0},
    "fear": {"brow": 0.55, "brow_inner": 0.9, "lids": 0.35, "corner": -0.3, "stretch": 0.5, "jaw": 0.22},
}
_SMILE = {"corner": 0.9, "stretch": 0.3, "lids": -0.15}
_FROWN = {"brow": -0.4, "brow_inner": -0.7, "corner": -0.5}
_BLINK = (0.75, 0.3, 0.05, 0.4, 0.8)
_BLINKS = (1.5, 3.5)
_PLACE = (0.5, 0.53)


def perform(script: Script, frames: int, dice: np.random.Generator) -> tuple[Moment, ...]:
    """The frames of a performance, by chance within what the script says."""
    seconds = np.arange(frames) / FPS
    head = _head(script.actions, seconds, dice)
    face = _face(script, seconds, dice)
    opening, width = mouth(script.said, frames)
    poses = [Pose(*row) for row in np.stack([head[field.name] for field in fields(Pose)], axis=1).tolist()]
    faces = [Face(*row) for row in np.stack([face[field.name] for field in fields(Face)], axis=1).tolist()]
    return tuple(Moment(*parts) for parts in zip(poses, faces, opening.tolist(), width.tolist(), strict=True))


def _head(actions: frozenset[str], seconds: Floats, dice: np.random.Generator) -> dict[str, Floats]:
    def drift(most: float) -> Floats:
        slow, slower = dice.uniform(0.25, 0.5), dice.uniform(0.1, 0.25)
        return most * (0.6 * _wave(seconds, slow, dice) + 0.4 * _wave(seconds, slower, dice))

    head = {
        "x": _PLACE[0] + dice.uniform(-0.03, 0.03) + drift(0.03),
        "y": _PLACE[1] + dice.uniform(-0.02, 0.02) + drift(0.02),
        "scale": 0.3 * dice.uniform(0.94, 1.06) * (1 + drift(0.04)),
        "roll": drift(0.06),
        "yaw": drift(0.12),
        "pitch": drift(0.06),
    }
    if "nod" in actions:
        head["pitch"] = head["pitch"] + 0.28 * _wave(seconds, dice.uniform(1.2, 1.6), dice)
    if "shake_head" in actions:
        head["yaw"] = head["yaw"] + 0.42 * _wave(seconds, dice.uniform(1.2, 1.6), dice)
    if "head_wagging" in actions:
        head["roll"] = head["roll"] + 0.26 * _wave(seconds, dice.uniform(0.7, 1.0), dice)
    if "turn" in actions:
        side = dice.choice([-1.0, 1.0])
        head["yaw"] = head["yaw"] + side * 0.28 * (1.3 + _wave(seconds, dice.uniform(0.25, 0.4), dice))
    return head


def _face(script: Script, seconds: Floats, dice: np.random.Generator) -> dict[str, Floats]:
    names = ("brow", "brow_inner", "lids", "corner", "stretch", "lip", "jaw")
    face = {name: np.zeros(len(seconds)) for name in names}

    def add(effect: Mapping[str, float], strength: Floats) -> None:
        for name, value in effect.items():
            face[name] = face[name] + value * strength

    for emotion, intensity in script.emotions.items():
        # It comes and goes, and is never weaker than three quarters of what the label says.
        add(_FACES[emotion], intensity / STRONGEST * (0.875 + 0.125 * _wave(seconds, dice.uniform(0.3, 0.6), dice)))
    for action, effect in (("smile", _SMILE), ("frown", _FROWN)):
        if action in script.actions:
            add(effect, 0.9 + 0.1 * _wave(seconds, dice.uniform(0.3, 0.6), dice))
    if "yawn" in script.actions:
        add({"jaw": 1.0, "lids": -0.3, "stretch": -0.3}, _pulses(seconds, 1.8, 1.5, dice))
    lids = np.clip(1 + face.pop("lids"), 0.3, 1.35)
    left, right = lids * (open_ := _blinks(seconds, dice)), lids * open_
    if "close_eyes" in script.actions:
        shut = 1 - _pulses(seconds, 1.6, 1.2, dice) ** 0.25
        left, right = left * shut, right * shut
    if "wink" in script.actions:
        shut = 1 - _pulses(seconds, 0.9, 0.45, dice) ** 0.5
        left, right = (left * shut, right) if dice.random() < 0.5 else (left, right * shut)
    glance = 0.15 * _wave(seconds, dice.uniform(0.1, 0.3), dice)
    if "look_around" in script.actions:
        glance = np.tanh(2.5 * _wave(seconds, dice.uniform(0.5, 0.8), dice))
    return {**face, "left_lid": left, "right_lid": right, "gaze": glance}


def _wave(seconds: Floats, hertz: float, dice: np.random.Generator) -> Floats:
    """A sine of an unknown beginning."""
    wave: Floats = np.sin(2 * np.pi * (hertz * seconds + dice.random()))
    return wave


def _pulses(seconds: Floats, every: float, length: float, dice: np.random.Generator) -> Floats:
    """0 at rest and 1 at the top of a hump, which comes again and again; the period begins anywhere."""
    phase = np.mod(seconds + dice.uniform(0, every), every) / length
    pulses: Floats = np.where(phase < 1, np.sin(np.pi * np.minimum(phase, 1)) ** 2, 0.0)
    return pulses


def _blinks(seconds: Floats, dice: np.random.Generator) -> Floats:
    """Opening (n,) of eyes that blink now and then."""
    opening = np.ones(len(seconds))
    clock = dice.uniform(0, _BLINKS[1])
    while (first := round(clock * FPS)) < len(seconds):
        part = opening[first : first + len(_BLINK)]
        part[:] = _BLINK[: len(part)]
        clock += dice.uniform(*_BLINKS)
    return opening
