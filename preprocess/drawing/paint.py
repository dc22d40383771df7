"""Paints a head and its label map: everything from back to front, each part by the attributes of the look."""

from dataclasses import dataclass, replace

import numpy as np

from preprocess.arrays import Floats
from preprocess.drawing import anatomy
from preprocess.drawing.anatomy import Head, ellipse, mirrored
from preprocess.drawing.canvas import Canvas
from preprocess.drawing.looks import Colour, Look
from preprocess.drawing.motion import Moment
from preprocess.regions import BACKGROUND, HAIR, LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, SKIN

# The person's right eye is at the left of the picture.
_EYES = {RIGHT_EYE: -1.0, LEFT_EYE: 1.0}
_BLACK = (22.0, 18.0, 20.0)
_GOLD = (236.0, 200.0, 72.0)
_LIPSTICK = (196.0, 24.0, 60.0)
_FAINT = 0.1

# Beside the nose and from it to the mouth; between the brows.
_SNEER_LINES = (
    ((-0.1, 0.0), (-0.04, -0.05)),
    ((0.1, 0.0), (0.04, -0.05)),
    ((-0.3, 0.2), (-0.36, 0.5)),
    ((0.3, 0.2), (0.36, 0.5)),
)
_FROWN_LINES = (((-0.05, -0.38), (-0.04, -0.26)), ((0.05, -0.38), (0.04, -0.26)))


@dataclass(frozen=True)
class Light:
    """Where light comes from (x, y in the picture, length at most 1)."""

    x: float
    y: float


def paint_head(canvas: Canvas, look: Look, moment: Moment, light: Light) -> None:
    """Paints everything but the background."""
    head = Head(look.person, moment.pose, canvas.size)
    _body(canvas, look, head)
    _face(canvas, look, head, moment, light)
    for region in _EYES:
        _eye(canvas, look, head, moment, region)
    _nose(canvas, look, head, moment)
    _mouth(canvas, look, head, moment)
    _beard(canvas, look, head, moment)
    for region, side in _EYES.items():
        outline = anatomy.brow_outline(look, side, moment.face.brow, moment.face.brow_inner)
        canvas.fill(head.place(outline), _shade(_brow_colour(look), 0.75), region)
    _front(canvas, look, head)


def _shade(colour: Colour | Floats, factor: float) -> Floats:
    shaded: Floats = np.clip(np.asarray(colour, np.float32) * factor, 0, 255)
    return shaded


def _brow_colour(look: Look) -> Floats:
    """Brows are never as light as the skin."""
    colour: Floats = np.minimum(_shade(look.person.hair, 1.0), _shade(look.person.skin, 0.8))
    return colour


def _body(canvas: Canvas, look: Look, head: Head) -> None:
    """Clothes, hair behind the head, neck and ears; all but the hair is background."""
    person, pose = look.person, head.pose
    torso = replace(head, pose=replace(pose, roll=0.2 * pose.roll, yaw=0.0, pitch=0.0))
    half = np.array([(0.34, 1.2), (0.6, 1.3), (1.25, 1.46), (1.5, 2.4)])
    canvas.fill(torso.place(mirrored(half), depth=0.0), look.clothes, BACKGROUND)
    if "bald" not in look:
        canvas.fill(head.place(anatomy.hair_back(look), depth=-0.25), _shade(person.hair, 0.78), HAIR)
    neck = np.array([(0.38, 0.7), (0.38, 1.2), (0.0, 1.44)])
    skin = _shade(person.skin, 0.84)
    canvas.fill(torso.place(mirrored(neck), depth=0.0), skin, BACKGROUND)
    for side in (-1, 1):
        ear = ellipse(side * (person.width + 0.03), 0.0, 0.1, 0.2)
        canvas.fill(head.place(ear, depth=-0.1), _shade(person.skin, 0.92), BACKGROUND)
    if "double_chin" in look:
        chin = ellipse(0.0, 0.86, 0.72 * person.width, 0.3)
        canvas.fill(head.place(chin, depth=0.1), _shade(person.skin, 0.93), BACKGROUND)
        canvas.stroke(head.place(chin[2:15], depth=0.1), _shade(person.skin, 0.6), 0.035 * head.unit)
    if "wearing_necktie" in look:
        _necktie(canvas, look, torso)
    if "wearing_necklace" in look:
        for angle in np.linspace(0.12, np.pi - 0.12, 11):
            bead = ellipse(0.4 * np.cos(angle), 1.16 + 0.26 * np.sin(angle), 0.042, 0.042, 12)
            canvas.fill(torso.place(bead, depth=0.0), _GOLD, BACKGROUND)


def _necktie(canvas: Canvas, look: Look, torso: Head) -> None:
    white = np.array([(-0.4, 1.14), (0.0, 1.36), (0.4, 1.14), (0.5, 1.34), (0.16, 1.62), (-0.16, 1.62), (-0.5, 1.34)])
    canvas.fill(torso.place(white, depth=0.0), (244, 244, 244), BACKGROUND)
    tie = np.array([(-0.11, 1.28), (0.11, 1.28), (0.07, 1.42), (0.17, 2.2), (-0.17, 2.2), (-0.07, 1.42)])
    colour = [255 - value for value in look.clothes]
    canvas.fill(torso.place(tie, depth=0.0), colour, BACKGROUND)
    canvas.stroke(torso.place(tie[[0, 1, 2, 5]], depth=0.0), _shade(np.array(colour), 0.6), 1, closed=True)


def _face(canvas: Canvas, look: Look, head: Head, moment: Moment, light: Light) -> None:
    """The skin, lit from one side, and what is on it."""
    person = look.person
    outline = head.place(anatomy.face_outline(person, anatomy.opening_of(moment)), depth=0.0)
    canvas.fill(outline, _lit(person.skin, head, light), SKIN)
    if "bald" in look:
        spot = head.place(np.array([[-0.3 * light.x * person.width, -0.7]]))[0]
        canvas.glow(spot, 0.4 * head.unit, (255, 255, 255), 0.5, outline)
    if "rosy_cheeks" in look:
        for side in (-1, 1):
            [cheek] = head.place(np.array([[side * 0.58 * person.width, 0.3]]))
            canvas.glow(cheek, 0.42 * head.unit, (226, 60, 76), 0.75, outline)
    for amount, lines in ((moment.face.lip, _SNEER_LINES), (-moment.face.brow_inner, _FROWN_LINES)):
        if amount > _FAINT:
            for line in lines:
                ends = head.place(np.array(line), lift=0.05)
                canvas.stroke(ends, _shade(person.skin, 0.6), 0.03 * head.unit, opacity=min(1.0, amount))


def _lit(skin: Colour, head: Head, light: Light) -> Floats:
    """Colour of the skin at each pixel (S, S, 3): brighter towards the light, darker at the edge."""
    pose, size = head.pose, head.size
    columns = (np.arange(size, dtype=np.float32) + 0.5 - pose.x * size) / head.unit
    rows = ((np.arange(size, dtype=np.float32) + 0.5 - pose.y * size) / head.unit)[:, None]
    shade = 1.02 + 0.2 * light.x * columns + 0.16 * light.y * rows - 0.1 * (columns**2 + rows**2)
    return np.clip(shade[..., None] * np.asarray(skin, np.float32), 0, 255)


def _eye(canvas: Canvas, look: Look, head: Head, moment: Moment, region: int) -> None:
    """White, iris, lids and what is below them."""
    person, face, side = look.person, moment.face, _EYES[region]
    lid = face.left_lid if region == LEFT_EYE else face.right_lid
    around = ellipse(side * person.eye_apart, person.eye_level, 0.19, 0.15)
    canvas.fill(head.place(around), _shade(person.skin, 0.82), opacity=0.45)
    if "bags_under_eyes" in look:
        bag = ellipse(side * person.eye_apart, person.eye_level + 0.13, 0.15, 0.065)
        canvas.fill(head.place(bag), (92, 70, 104), opacity=0.5)
        canvas.stroke(head.place(bag[1:16]), _shade(person.skin, 0.5), 0.02 * head.unit)
    outline = anatomy.eye_outline(look, side, max(lid, 0.08))
    placed = head.place(outline)
    canvas.fill(placed, (246, 246, 242), region)
    x, y = side * person.eye_apart + 0.09 * face.gaze, person.eye_level
    for radius, colour in ((anatomy.IRIS, person.iris), (0.5 * anatomy.IRIS, _BLACK)):
        canvas.fill(head.place(ellipse(x, y, radius, radius)), colour, within=placed)
    glint = ellipse(x - 0.03, y - 0.03, 0.022, 0.022, 12)
    canvas.fill(head.place(glint), (255, 255, 255), within=placed)
    canvas.stroke(head.place(anatomy.upper_lid(outline)), _BLACK, 0.035 * head.unit, region)


def _nose(canvas: Canvas, look: Look, head: Head, moment: Moment) -> None:
    skin, lift = look.person.skin, 0.16
    raised = np.array([0.0, 0.04 * moment.face.lip])
    outline = anatomy.nose_outline(look) - raised
    canvas.fill(head.place(outline, lift), _shade(skin, 0.95), NOSE)
    canvas.stroke(head.place(outline[2:12], lift), _shade(skin, 0.66), 0.03 * head.unit)
    for hole in anatomy.nostrils(look):
        canvas.fill(head.place(hole - raised, lift), _shade(skin, 0.35))


def _mouth(canvas: Canvas, look: Look, head: Head, moment: Moment) -> None:
    shape = anatomy.mouth_shape(look, moment)
    lips, inner = head.place(shape.lips), head.place(shape.inner)
    skin = np.asarray(look.person.skin, np.float32)
    colour = np.asarray(_LIPSTICK) if "wearing_lipstick" in look else 0.62 * skin + 0.38 * np.array([170, 60, 70])
    canvas.fill(lips, colour, MOUTH)
    opening = anatomy.opening_of(moment)
    if opening > 0.03:
        canvas.fill(inner, (70, 18, 24))
        depth = 0.5 * (shape.lower - shape.upper)
        right, low = (float(value) for value in shape.lower.max(axis=0))
        tongue = ellipse(0.0, low, 0.6 * right, 0.11 * opening)
        canvas.fill(head.place(tongue), (196, 84, 92), within=inner)
        teeth = np.concatenate([shape.upper, (shape.upper + np.minimum(depth, 0.055))[::-1]])
        canvas.fill(head.place(teeth), (250, 248, 240), within=inner)
    else:
        canvas.stroke(head.place(shape.upper), _shade(colour, 0.5), 0.025 * head.unit)
    canvas.stroke(lips, _shade(colour, 0.7), 1, closed=True, opacity=0.6)


def _beard(canvas: Canvas, look: Look, head: Head, moment: Moment) -> None:
    """Beards are skin in the label map."""
    person = look.person
    colour = np.minimum(_shade(person.hair, 0.85), _shade(person.skin, 0.6))
    shape = anatomy.mouth_shape(look, moment)
    if "mustache" in look:
        line = shape.lips[:17]
        top = line - (0, 0.13)
        band = np.concatenate([line * (1.12, 1) + (0, 0.01), (top * (0.9, 1) + (0, 0.015))[::-1]])
        canvas.fill(head.place(band), colour, SKIN)
    if "goatee" in look:
        low = float(shape.lips[:, 1].max())
        end = 1.03 + 0.1 * anatomy.opening_of(moment)
        half = np.array([(0.1, low + 0.03), (0.2, low + 0.12), (0.22, end - 0.12), (0.12, end)])
        canvas.fill(head.place(mirrored(half)), colour, SKIN)


def _front(canvas: Canvas, look: Look, head: Head) -> None:
    """What lies before the face: hair, hat, glasses and earrings."""
    person = look.person
    if "bald" not in look:
        cap = anatomy.hair_cap(look)
        canvas.fill(head.place(cap, lift=0.05), person.hair, HAIR)
        for start in np.linspace(0.27, 0.73, 7):
            strand = cap[round(48 * start)] * np.linspace(0.98, 0.72, 7)[:, None]
            bend = _shade(person.hair, 0.72 if round(100 * start) % 2 else 1.25)
            if "wavy_hair" in look:
                strand = strand + np.stack([0.03 * np.sin(np.arange(7) * 1.6), np.zeros(7)], axis=1)
            canvas.stroke(head.place(strand, lift=0.05), bend, 0.02 * head.unit, opacity=0.7)
    if "wearing_hat" in look:
        colour = np.asarray(look.clothes)[[1, 2, 0]]
        canvas.fill(head.place(anatomy.hat_dome(person), depth=0.1), colour, BACKGROUND)
        band = np.array([(-1.09, -0.72), (1.09, -0.72), (1.1, -0.58), (-1.1, -0.58)]) * (person.width, 1)
        canvas.fill(head.place(band, depth=0.1), _shade(colour, 0.5), BACKGROUND)
        canvas.fill(head.place(anatomy.hat_brim(person), depth=0.15), _shade(colour, 0.8), BACKGROUND)
    if "eyeglasses" in look or "sunglasses" in look:
        _glasses(canvas, look, head)
    if "wearing_earrings" in look:
        for side in (-1, 1):
            for level, radius in ((0.26, 0.05), (0.4, 0.075)):
                ring = ellipse(side * (person.width + 0.07), level, radius, radius, 16)
                canvas.fill(head.place(ring, depth=-0.05), _GOLD, BACKGROUND)


def _glasses(canvas: Canvas, look: Look, head: Head) -> None:
    """Glasses leave the labels: there are eyes and skin behind them."""
    person = look.person
    for side in (-1.0, 1.0):
        glass = head.place(anatomy.lens(person, side), lift=0.12)
        if "sunglasses" in look:
            canvas.fill(glass, (28, 30, 38), opacity=0.94)
        canvas.stroke(glass, _BLACK, 0.05 * head.unit, closed=True)
        outer = side * (person.eye_apart + min(0.235, 0.9 * person.eye_apart))
        temple = np.array([(outer, person.eye_level), (side * person.width, person.eye_level - 0.03)])
        canvas.stroke(head.place(temple), _BLACK, 0.05 * head.unit)
    bridge = np.array([(-1.0, 0.0), (1.0, 0.0)]) * max(0.04, person.eye_apart - 0.235) + (0, person.eye_level - 0.02)
    canvas.stroke(head.place(bridge, lift=0.2), _BLACK, 0.05 * head.unit)
