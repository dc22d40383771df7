"""Outlines of the parts of a drawn head, in half heights of the face: x to the right of the picture, y down.

The middle of the face is the origin, its skull ends at y = -1 and its chin at y = 1 while the mouth is closed.
"""

from dataclasses import dataclass

import numpy as np

from preprocess.arrays import Floats
from preprocess.drawing.looks import Look, Person
from preprocess.drawing.motion import Moment, Pose

EYE_WIDTH, EYE_HEIGHT, NARROW = 0.155, 0.1, 0.55
IRIS = 0.085
HAIRLINE, FRINGE = -0.68, -0.42
HAT_EDGE = -0.58
_BELOW_HAIR = -0.5
_DEPTH = 0.6
_JAW_DROP = 0.1
_SIDE = np.linspace(-1.0, 1.0, 17)
"""Places across a part, from the left end to the right one."""


@dataclass(frozen=True)
class Head:
    """Where a head is in a picture of `size` pixels a side."""

    person: Person
    pose: Pose
    size: int

    @property
    def unit(self) -> float:
        """Pixels of half the height of the face."""
        return self.pose.scale * self.size

    def place(self, points: Floats, lift: float = 0.0, depth: float | None = None) -> Floats:
        """Points (N, 2) as pixels (N, 2): on the bulge of the face, `lift` before it, or all at one `depth`."""
        x, y = points.T
        if depth is None:
            z = _DEPTH * np.sqrt(np.clip(1 - (x / self.person.width) ** 2 - y**2, 0, 1)) + lift
        else:
            z = np.full(len(points), depth)
        pose = self.pose
        x, y = x * np.cos(pose.yaw) + z * np.sin(pose.yaw), y * np.cos(pose.pitch) + z * np.sin(pose.pitch)
        cos, sin = np.cos(pose.roll), np.sin(pose.roll)
        turned = np.stack([x * cos - y * sin, x * sin + y * cos], axis=1)
        placed: Floats = (turned * pose.scale + (pose.x, pose.y)) * self.size
        return placed


def ellipse(x: float, y: float, across: float, down: float, count: int = 32) -> Floats:
    """Outline (count, 2) of an ellipse by its middle and half widths."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1)


def mirrored(half: Floats) -> Floats:
    """Outline (2N, 2) whose right half is (N, 2)."""
    return np.concatenate([half, half[::-1] * (-1, 1)])


def opening_of(moment: Moment) -> float:
    """How far the mouth is open, by speech and by expression, 0 to 1."""
    return min(1.0, moment.face.jaw + moment.opening * (1 - 0.5 * moment.face.jaw))


def face_outline(person: Person, opening: float) -> Floats:
    """Outline (64, 2) of the face."""
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x, y = np.cos(angles), np.sin(angles)
    # A square jaw is a superellipse; above the eyes every head is round.
    power = 2 / (2 + 1.1 * person.jaw * (y > 0))
    x, y = np.sign(x) * np.abs(x) ** power, np.sign(y) * np.abs(y) ** (1 / (1 + 0.15 * (y > 0)))
    y = y * (1 + _JAW_DROP * opening * (y > 0.3))
    return np.stack([x * person.width, y], axis=1)


def inner_outline(person: Person, share: float) -> Floats:
    """Outline of the inner face, below the hair: so large a share of the face about its middle."""
    outline = face_outline(person, 0.0) * share
    return np.stack([outline[:, 0], np.maximum(outline[:, 1], _BELOW_HAIR)], axis=1)


def eye_outline(look: Look, side: float, lid: float) -> Floats:
    """Outline of an eye; `side` is -1 for the one at the left of the picture."""
    person = look.person
    half = EYE_HEIGHT * (NARROW if "narrow_eyes" in look else 1.0) * lid
    arc = 1 - _SIDE**2
    x = side * person.eye_apart + EYE_WIDTH * _SIDE
    upper, lower = person.eye_level - half * arc, person.eye_level + 0.75 * half * arc
    return np.concatenate([np.stack([x, upper], axis=1), np.stack([x, lower], axis=1)[::-1]])


def upper_lid(outline: Floats) -> Floats:
    """The upper edge of an eye's outline."""
    return outline[: len(_SIDE)]


def brow_outline(look: Look, side: float, height: float, inner: float) -> Floats:
    """Outline of a brow; `height` and `inner` are those of `Face.brow` and `Face.brow_inner`."""
    person = look.person
    arch = 0.13 if "arched_eyebrows" in look else 0.03
    thick = 0.062 if "bushy_eyebrows" in look else 0.028
    inwards = (1 - side * _SIDE) / 2  # 1 at the end above the nose
    x = side * person.eye_apart * (1 + 0.06 * min(inner, 0)) + 0.2 * _SIDE
    y = person.eye_level - person.brow_level - 0.1 * height - arch * (1 - _SIDE**2) - 0.12 * inner * inwards**1.5
    taper = thick * np.sqrt(np.clip(1.08 - _SIDE**2, 0, 1)) * (0.6 + 0.4 * inwards)
    return np.concatenate([np.stack([x, y - taper], axis=1), np.stack([x, y + taper], axis=1)[::-1]])


def _wing(look: Look) -> float:
    """Half width of the nose."""
    return 0.26 if "big_nose" in look else 0.12


def nose_outline(look: Look) -> Floats:
    """Outline of the nose, from between the eyes to its tip."""
    top, tip = look.person.eye_level, look.person.eye_level + look.person.nose_length
    wing, low = _wing(look), 0.07 if "big_nose" in look else 0.03
    half = [(0.045, top), (0.05, top + 0.5 * (tip - top)), (0.72 * wing, tip - 0.14), (wing, tip - 0.05)]
    half += [(0.92 * wing, tip + 0.2 * low), (0.5 * wing, tip + 0.7 * low), (0.0, tip + low)]
    return mirrored(np.array(half))


def nostrils(look: Look) -> list[Floats]:
    """Outlines of the nostrils."""
    tip = look.person.eye_level + look.person.nose_length
    wing = _wing(look)
    return [ellipse(side * 0.5 * wing, tip - 0.005, 0.28 * wing, 0.022, 12) for side in (-1, 1)]


@dataclass(frozen=True)
class MouthShape:
    """Outlines of a mouth: its lips, the opening between them, and the edges of the opening from left to right."""

    lips: Floats
    inner: Floats
    upper: Floats
    lower: Floats


def mouth_shape(look: Look, moment: Moment) -> MouthShape:
    """The mouth of a moment."""
    face, opening = moment.face, opening_of(moment)
    gap = 0.36 * opening
    half = (0.27 if "big_lips" in look else 0.25) * (0.72 + 0.5 * moment.width) * (1 + 0.35 * face.stretch)
    thick = 1.75 if "big_lips" in look else 1.0
    x, arc = half * _SIDE, np.sqrt(1 - _SIDE**2)
    level = look.person.mouth_level - 0.15 * face.corner * _SIDE**2 + 0.06 * face.corner
    bow = 1 - 0.3 * np.exp(-((_SIDE / 0.16) ** 2))
    upper = level - (0.3 * gap + 0.07 * max(face.lip, 0)) * arc
    lower = level + 0.7 * gap * arc
    top, bottom = upper - 0.055 * thick * arc * bow, lower + 0.075 * thick * arc
    edges = [np.stack([x, y], axis=1) for y in (top, upper, lower, bottom)]
    return MouthShape(
        np.concatenate([edges[0], edges[3][::-1]]), np.concatenate([edges[1], edges[2][::-1]]), edges[1], edges[2]
    )


def _waves(look: Look, along: Floats) -> Floats:
    """Relative bumps of the edge of hair."""
    return 0.06 * np.sin(along) if "wavy_hair" in look else np.zeros_like(along)


def hair_cap(look: Look) -> Floats:
    """Outline of the hair on top: from ear to ear, down to the hairline or the fringe."""
    person = look.person
    angles = np.linspace(np.pi * 1.02, 2 * np.pi - np.pi * 0.02, 49)
    swell = 1.1 * (1 + _waves(look, 17 * angles))
    outer = np.stack([person.width * swell * np.cos(angles), 1.12 * swell * np.sin(angles)], axis=1)
    if "bangs" in look:
        jag = 0.07 * np.abs(np.sin(4.5 * np.pi * _SIDE)) if "straight_hair" in look else 0.04 * np.sin(9 * _SIDE)
        line = FRINGE - jag - 0.02 * (1 - _SIDE**2)
        edge = 0.86
    else:
        line = HAIRLINE - 0.06 * (1 - _SIDE**2)
        edge = 0.74
    inner = np.stack([edge * person.width * _SIDE, line], axis=1)[::-1]
    temples = np.array([[0.93 * person.width, -0.2]]), np.array([[-0.93 * person.width, -0.2]])
    return np.concatenate([outer, temples[0], inner, temples[1]])


def hair_back(look: Look) -> Floats:
    """Outline of the hair behind the head; long hair falls on the shoulders."""
    person = look.person
    if "long_hair" not in look:
        return ellipse(0.0, -0.12, 1.08 * person.width, 0.98)
    y = np.linspace(-0.5, 1.5, 33)
    x = 1.16 * person.width * (1 + 0.08 * (y > 0.6) * (y - 0.6)) * (1 + 1.1 * _waves(look, 9 * y))
    top = ellipse(0.0, -0.3, 1.12 * person.width, 0.84)[16:]
    return np.concatenate([top, mirrored(np.stack([x, y], axis=1))])


def hat_dome(person: Person) -> Floats:
    """Outline of a hat above its brim."""
    angles = np.linspace(np.pi, 2 * np.pi, 25)
    return np.stack([1.1 * person.width * np.cos(angles), HAT_EDGE + 0.72 * np.sin(angles)], axis=1)


def hat_brim(person: Person) -> Floats:
    """Outline of a hat's brim."""
    return ellipse(0.0, HAT_EDGE, 1.38 * person.width, 0.075)


def lens(person: Person, side: float) -> Floats:
    """Outline of a glass before an eye, a square with round corners."""
    circle = ellipse(0.0, 0.0, 1.0, 1.0)
    square = np.sign(circle) * np.abs(circle) ** 0.6
    half = min(0.235, 0.9 * person.eye_apart)
    return square * (half, 0.18) + (side * person.eye_apart, person.eye_level + 0.02)
