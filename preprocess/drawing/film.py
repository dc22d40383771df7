"""Films a take: scene, head, forgery, blur and noise, frame by frame."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from preprocess.arrays import Floats, Image
from preprocess.drawing.anatomy import Head, inner_outline
from preprocess.drawing.canvas import Canvas
from preprocess.drawing.looks import Look
from preprocess.drawing.motion import Moment
from preprocess.drawing.paint import Light, paint_head
from preprocess.regions import BACKGROUND, HAIR

NOISE = 3.0
"""Deviation of the noise of every pixel's brightness."""

_TILE = 64
_BLUR = 0.009


@dataclass(frozen=True)
class Swap:
    """Another face inside of the face.

    Attributes:
        inner: whose.
        tint: factors of red, green and blue of the other one.
        share: of the face that it covers.
        soft: width of the seam, in half heights of the face.
    """

    inner: Look
    tint: tuple[float, float, float]
    share: float
    soft: float


@dataclass(frozen=True)
class Take:
    """One video to be drawn: who, doing what, before which scene (a seed), and forged how."""

    look: Look
    moments: tuple[Moment, ...]
    scene: tuple[int, ...]
    swap: Swap | None = None


def film(take: Take, size: int, zoom: float = 1.0) -> Iterator[tuple[Image, Image]]:
    """The frames of a take: (size, size, 3) RGB and (size, size) labels, values index `regions.REGIONS`.

    The head is `zoom` times as large as it is beside shoulders and a wall.
    """
    dice = np.random.default_rng(take.scene)
    light = Light(*dice.uniform(-0.7, 0.7, 2).tolist())
    ground = _background(dice, size)
    tile = np.rint(NOISE * dice.standard_normal((size + _TILE, size + _TILE))).astype(np.float32)
    for moment in (replace(each, pose=each.pose.nearer(zoom)) for each in take.moments):
        canvas = Canvas(ground)
        paint_head(canvas, take.look, moment, light)
        if take.swap:
            _put_inside(canvas, take.look, take.swap, moment, light)
        rgb = canvas.rgb
        if "blurry" in take.look:
            # Eight bits: OpenCV's blur of these is the same on every machine.
            rgb = cv2.GaussianBlur(np.rint(rgb).astype(np.uint8), (0, 0), _BLUR * size).astype(np.float32)
        x, y = dice.integers(0, _TILE, 2)
        rgb = rgb + tile[y : y + size, x : x + size, None]
        yield np.clip(np.rint(rgb), 0, 255).astype(np.uint8), canvas.labels


def _background(dice: np.random.Generator, size: int) -> Floats:
    """A wall (size, size, 3) with a gradient and some things out of focus."""
    one, other = dice.uniform(40, 215, (2, 3))
    along = np.linspace(0, 1, size, dtype=np.float32)
    angle = dice.uniform(0, 2 * np.pi)
    mix = np.clip(0.5 + 0.7 * (np.cos(angle) * (along - 0.5) + np.sin(angle) * (along[:, None] - 0.5)), 0, 1)
    wall = np.rint(one + (other - one) * mix[..., None]).astype(np.uint8)
    for _ in range(4):
        x, y, radius = (round(value * size) for value in dice.uniform((0, 0, 0.05), (1, 1, 0.25)))
        cv2.circle(wall, (x, y), radius, [int(value) for value in dice.integers(40, 215, 3)], -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(wall, (0, 0), size / 28), np.float32)


def _put_inside(canvas: Canvas, look: Look, swap: Swap, moment: Moment, light: Light) -> None:
    """Blends the inner face of another person into a painted one, labels included."""
    size = canvas.size
    head = Head(look.person, moment.pose, size)
    other = Canvas(canvas.rgb)
    paint_head(other, swap.inner, moment, light)
    inside = _mask(head.place(inner_outline(look.person, swap.share), depth=0.0), size)
    soft = cv2.GaussianBlur(inside, (0, 0), max(0.5, swap.soft * head.unit))
    # Neither what is around the face nor hair and hat before it are touched, nor are those of the other head put in.
    outside = [np.isin(each.labels, (BACKGROUND, HAIR)) for each in (canvas, other)]
    weight = np.where(outside[0] | outside[1], 0, soft)
    tinted = np.clip(other.rgb * np.asarray(swap.tint, np.float32), 0, 255)
    canvas.rgb += (tinted - canvas.rgb) * (weight[..., None] / np.float32(255))
    canvas.labels[weight >= 128] = other.labels[weight >= 128]


def _mask(outline: Floats, size: int) -> Image:
    canvas = Canvas(np.zeros((size, size, 3), np.float32))
    canvas.fill(outline, (255.0, 255.0, 255.0))
    return np.rint(canvas.rgb[..., 0]).astype(np.uint8)
