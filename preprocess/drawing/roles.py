"""What is shown in one drawn video, small enough to hand to another process; and the take and the sound made of it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from preprocess.drawing.film import Swap, Take
from preprocess.drawing.looks import Look, Person
from preprocess.drawing.motion import Moment, Script, perform
from preprocess.drawing.speech import Sound, Utterance, mouth, sound

_MOTION, _SCENE, _VOICE, _FORGERY = range(4)

# Forgers match the colours of faces, and not quite.
_MATCHED = 0.6

# What is inside of the face, and stays with the video when the face is another one's.
_INSIDE = frozenset(
    {"blurry", "bags_under_eyes", "eyeglasses", "sunglasses", "no_beard", "goatee", "mustache", "wearing_lipstick"}
)


@dataclass(frozen=True)
class MouthForgery:
    """A mouth that does not go with its time.

    Attributes:
        said: what it says.
        reach: frames by which each frame's mouth is off, at most, each by chance.
        jitter: deviation of its opening.
    """

    said: Utterance
    reach: int
    jitter: float


@dataclass(frozen=True)
class Role:
    """One video: who is seen, what they do, all else by a seed, and how it is forged."""

    look: Look
    script: Script
    seed: tuple[int, ...]
    forgery: MouthForgery | Swap | None = None


def take_of(role: Role, frames: int) -> Take:
    """The take of a role."""
    moments = perform(role.script, frames, np.random.default_rng((*role.seed, _MOTION)))
    scene = (*role.seed, _SCENE)
    if isinstance(role.forgery, MouthForgery):
        moments = _with_mouth(moments, role.forgery, np.random.default_rng((*role.seed, _FORGERY)))
        return Take(role.look, moments, scene)
    return Take(role.look, moments, scene, role.forgery)


def voice_of(role: Role, frames: int) -> Sound:
    """The sound of a role: of what is really said, also where the mouth is forged."""
    dice = np.random.default_rng((*role.seed, _VOICE))
    return sound(role.script.said, frames, role.look.person.voice, dice)


def face_of(person: Person, worn: Look) -> Look:
    """The face of a person with what another look wears inside of the face, its skin brought nearer to the other's."""
    mixed = np.rint(_MATCHED * np.array(worn.person.skin) + (1 - _MATCHED) * np.array(person.skin)).astype(int)
    matched = replace(person, skin=(int(mixed[0]), int(mixed[1]), int(mixed[2])))
    return replace(worn, person=matched, attributes=person.traits | (worn.attributes & _INSIDE))


def _with_mouth(moments: Iterable[Moment], forgery: MouthForgery, dice: np.random.Generator) -> tuple[Moment, ...]:
    moments = tuple(moments)
    opening, width = mouth(forgery.said, len(moments))
    off = dice.integers(-forgery.reach, forgery.reach, len(moments), endpoint=True)
    at = np.clip(np.arange(len(moments)) + off, 0, len(moments) - 1)
    opened = np.clip(opening[at] + forgery.jitter * dice.standard_normal(len(moments)), 0, 1)
    return tuple(
        replace(moment, opening=float(value), width=float(width[place]))
        for moment, value, place in zip(moments, opened, at, strict=True)
    )
