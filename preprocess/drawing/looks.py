"""Who is drawn: a person's lasting features, and what changes from video to video (hair style, beard, glasses, …).

Attributes have the names of CelebV-HQ. They are what the renderer draws by: a label can't differ from its picture.
"""

from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]
"""RGB, 0 to 255."""

APPEARANCE: tuple[str, ...] = (
    "blurry",
    "chubby",
    "pale_skin",
    "rosy_cheeks",
    "bald",
    "bangs",
    "black_hair",
    "blonde_hair",
    "gray_hair",
    "brown_hair",
    "straight_hair",
    "wavy_hair",
    "long_hair",
    "arched_eyebrows",
    "bushy_eyebrows",
    "bags_under_eyes",
    "eyeglasses",
    "sunglasses",
    "narrow_eyes",
    "big_nose",
    "big_lips",
    "double_chin",
    "no_beard",
    "goatee",
    "mustache",
    "wearing_earrings",
    "wearing_hat",
    "wearing_lipstick",
    "wearing_necklace",
    "wearing_necktie",
)
"""The attributes of CelebV-HQ that are drawn, in the official order."""

HAIR_COLOURS: dict[str, Colour] = {
    "black_hair": (30, 26, 28),
    "blonde_hair": (226, 190, 110),
    "gray_hair": (172, 172, 176),
    "brown_hair": (104, 66, 38),
}
RED_HAIR: Colour = (168, 74, 36)
"""Of people with none of the named colours."""

_SKINS: tuple[Colour, ...] = ((236, 188, 152), (222, 168, 128), (198, 140, 100), (166, 112, 78), (134, 90, 64))
_PALE: Colour = (250, 224, 206)
_IRISES: tuple[Colour, ...] = ((70, 48, 30), (52, 104, 168), (64, 128, 84), (120, 110, 100))
_TRAITS = {"chubby": 0.25, "big_nose": 0.3, "big_lips": 0.3, "narrow_eyes": 0.2, "double_chin": 0.2}


@dataclass(frozen=True)
class Person:
    """Lasting features; lengths in half heights of the face.

    Attributes:
        traits: those of `APPEARANCE` that stay with the person.
        width: half width of the face.
        jaw: how square the lower half is, 0 to 1.
        eye_apart: from the middle of the face to the middle of an eye.
        eye_level, mouth_level: height of eyes and mouth below the middle of the face.
        brow_level: height of the brows above the eyes.
        nose_length: from between the eyes to its tip.
        voice: pitch in Hz.
    """

    traits: frozenset[str]
    skin: Colour
    hair: Colour
    iris: Colour
    width: float
    jaw: float
    eye_apart: float
    eye_level: float
    brow_level: float
    nose_length: float
    mouth_level: float
    voice: float


@dataclass(frozen=True)
class Look:
    """A person in one video."""

    person: Person
    attributes: frozenset[str]
    clothes: Colour

    def __contains__(self, attribute: str) -> bool:
        return attribute in self.attributes


def draw_person(dice: np.random.Generator) -> Person:
    """A person by chance."""
    traits = {name for name, share in _TRAITS.items() if dice.random() < share}
    skin = _SKINS[dice.integers(len(_SKINS))]
    if dice.random() < 0.25:
        traits.add("pale_skin")
        skin = _PALE
    hair = RED_HAIR
    if (kind := dice.integers(len(HAIR_COLOURS) + 1)) < len(HAIR_COLOURS):
        colour = list(HAIR_COLOURS)[kind]
        hair = HAIR_COLOURS[colour]
        traits.add(colour)
    if dice.random() < 0.12:
        traits = (traits - HAIR_COLOURS.keys()) | {"bald"}
    brows = dice.choice(["arched_eyebrows", "bushy_eyebrows", ""])
    width = dice.uniform(0.9, 0.98) if "chubby" in traits else dice.uniform(0.72, 0.8)
    return Person(
        traits=frozenset(traits | {str(brows)} - {""}),
        skin=_varied(dice, skin, 6),
        hair=_varied(dice, hair, 6),
        iris=_IRISES[dice.integers(len(_IRISES))],
        width=width,
        jaw=dice.uniform(0.0, 1.0),
        eye_apart=width * dice.uniform(0.43, 0.5),
        eye_level=dice.uniform(-0.2, -0.1),
        brow_level=dice.uniform(0.2, 0.26),
        nose_length=dice.uniform(0.38, 0.48),
        mouth_level=dice.uniform(0.5, 0.56),
        voice=dice.uniform(90.0, 220.0),
    )


def dress(person: Person, dice: np.random.Generator) -> Look:
    """A person as in one video, by chance; what would hide another attribute is not worn with it."""
    worn = {name for name, share in {"blurry": 0.12, "rosy_cheeks": 0.25}.items() if dice.random() < share}
    if "bald" not in person.traits:
        worn.add("wavy_hair" if dice.random() < 0.5 else "straight_hair")
        worn |= {
            name
            for name, share in {"bangs": 0.35, "long_hair": 0.4, "wearing_hat": 0.15}.items()
            if dice.random() < share
        }
    glasses = dice.choice(["eyeglasses", "sunglasses", "", ""])
    if glasses != "sunglasses":
        worn |= {"bags_under_eyes"} if dice.random() < 0.2 else set()
    if glasses and not (glasses == "sunglasses" and "narrow_eyes" in person.traits):
        worn.add(str(glasses))
    beard = {name for name in ("goatee", "mustache") if dice.random() < 0.25}
    worn |= beard or {"no_beard"}
    worn |= {name for name in ("wearing_earrings", "wearing_lipstick") if dice.random() < 0.25}
    neck = dice.choice(["wearing_necklace", "wearing_necktie", "", ""])
    worn |= {str(neck)} - {""}
    clothes = dice.integers(40, 200, 3)
    return Look(person, frozenset(worn | person.traits), (int(clothes[0]), int(clothes[1]), int(clothes[2])))


def appearance_labels(look: Look) -> list[int]:
    """A 0 or 1 for each of `APPEARANCE`."""
    return [int(name in look) for name in APPEARANCE]


def _varied(dice: np.random.Generator, colour: Colour, spread: int) -> Colour:
    red, green, blue = (int(value) for value in np.clip(colour + dice.integers(-spread, spread + 1, 3), 0, 255))
    return red, green, blue
