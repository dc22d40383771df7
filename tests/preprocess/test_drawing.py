"""Drawn faces: what the labels say is what is seen, and the label maps are those of the pictures."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from preprocess.drawing import VERSION
from preprocess.drawing.film import Take, film
from preprocess.drawing.layouts import LAYOUTS, Request, plan_corpus
from preprocess.drawing.looks import APPEARANCE, HAIR_COLOURS, Look, Person, draw_person, dress
from preprocess.drawing.motion import ACTIONS, EMOTIONS, Script, perform
from preprocess.drawing.roles import take_of
from preprocess.drawing.speech import Utterance, speak
from preprocess.regions import BACKGROUND, HAIR, LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, SKIN

SIZE = 160
FRAMES = 48
Labels = NDArray[np.uint8]

# sha256 of pictures and label maps by version: where a change is meant, raise VERSION and add its hash.
GOLDEN = {2: "859603bd18e577937fdec3ebbe99aebad26ceab568ef634b09a0e63424f5989f"}


def _some_look(seed: int) -> Look:
    dice = np.random.default_rng(seed)
    return dress(draw_person(dice), dice)


def _plain() -> Look:
    """A look with nothing worn, and a face of every day."""
    person = Person(
        traits=frozenset({"brown_hair"}),
        skin=(214, 160, 124),
        hair=HAIR_COLOURS["brown_hair"],
        iris=(52, 104, 168),
        width=0.76,
        jaw=0.4,
        eye_apart=0.35,
        eye_level=-0.15,
        brow_level=0.23,
        nose_length=0.43,
        mouth_level=0.53,
        voice=120.0,
    )
    return Look(person, frozenset({"brown_hair", "straight_hair", "no_beard"}), (60, 90, 140))


def _film(
    look: Look, actions: tuple[str, ...] = (), emotions: Mapping[str, float] | None = None, seed: int = 1
) -> Take:
    dice = np.random.default_rng(seed)
    said = speak(dice, FRAMES / 25) if "talk" in actions else Utterance()
    return Take(look, perform(Script(frozenset(actions), emotions or {}, said), FRAMES, dice), (seed,))


def _maps(take: Take) -> Labels:
    return np.stack([labels for _, labels in film(take, SIZE)])


def _middles(maps: Labels, *regions: int) -> NDArray[np.float64]:
    """Middle (F, 2) of some regions in each frame: x, y."""
    return np.array([np.argwhere(np.isin(labels, regions)).mean(axis=0)[::-1] for labels in maps])


def _areas(maps: Labels, region: int) -> NDArray[np.int64]:
    return (maps == region).sum(axis=(1, 2))


def test_pictures_are_those_of_the_version() -> None:
    digest = hashlib.sha256()
    for kind in LAYOUTS:
        corpus = plan_corpus(kind, Request(6, 32, seed=7))
        for path in sorted(corpus.roles):
            take = take_of(corpus.roles[path], 32)
            for rgb, labels in film(replace(take, moments=take.moments[::16]), 64):
                digest.update(rgb.tobytes() + labels.tobytes())
        for path in sorted(corpus.files):
            digest.update(corpus.files[path].encode())
    assert digest.hexdigest() == GOLDEN[VERSION], "it draws other pictures or labels: raise VERSION"


def test_a_swapped_face_has_no_hair_and_no_hole_of_the_other_head() -> None:
    corpus = plan_corpus("ffpp", Request(12, 32, seed=5))
    for path, role in corpus.roles.items():
        if "Deepfakes" not in path and "FaceSwap" not in path:
            continue
        take = replace(take_of(role, 32), moments=take_of(role, 32).moments[:1])
        [(_, forged)], [(_, genuine)] = film(take, 96), film(replace(take, swap=None), 96)
        face = ~np.isin(genuine, (BACKGROUND, HAIR))
        assert not np.isin(forged[face], (BACKGROUND, HAIR)).any(), path


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), actions=st.sets(st.sampled_from(ACTIONS)), emotion=st.sampled_from(EMOTIONS))
def test_every_region_is_there_whatever_the_face_does(seed: int, actions: set[str], emotion: str) -> None:
    take = _film(_some_look(seed), tuple(actions), {emotion: 3.0}, seed)
    for labels in _maps(replace(take, moments=take.moments[::12])):
        found = set(np.unique(labels).tolist())
        hair = set() if "bald" in take.look else {HAIR}
        assert found == {BACKGROUND, SKIN, LEFT_EYE, RIGHT_EYE, NOSE, MOUTH} | hair


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_parts_lie_where_a_face_has_them(seed: int) -> None:
    take = _film(_some_look(seed), (), {}, seed)
    [labels] = _maps(replace(take, moments=take.moments[:1]))
    middle = {region: _middles(labels[None], region)[0] for region in (LEFT_EYE, RIGHT_EYE, NOSE, MOUTH)}
    # The person's own left is on the right of the picture.
    assert middle[RIGHT_EYE][0] < middle[NOSE][0] < middle[LEFT_EYE][0]
    assert max(middle[LEFT_EYE][1], middle[RIGHT_EYE][1]) < middle[NOSE][1] < middle[MOUTH][1]


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32))
def test_attributes_of_a_look_go_together(seed: int) -> None:
    look = _some_look(seed)
    worn = look.attributes
    assert worn <= set(APPEARANCE)
    assert ("bald" in worn) == (not worn & {"straight_hair", "wavy_hair"})
    assert len(worn & HAIR_COLOURS.keys()) <= 1
    assert not ("bald" in worn and worn & {*HAIR_COLOURS, "bangs", "long_hair", "wearing_hat"})
    assert ("no_beard" in worn) == (not worn & {"goatee", "mustache"})
    assert not {"eyeglasses", "sunglasses"} <= worn
    assert not ("sunglasses" in worn and worn & {"narrow_eyes", "bags_under_eyes"})


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32), frames=st.integers(32, 200))
def test_whoever_talks_says_something_within_the_time(seed: int, frames: int) -> None:
    said = speak(np.random.default_rng(seed), frames / 25)
    assert said.text
    starts = [syllable.start for syllable in said.syllables]
    assert starts == sorted(starts)
    assert said.syllables[-1].start + said.syllables[-1].seconds <= frames / 25


def _with(look: Look, name: str) -> Look:
    """The look with one attribute more, less what it excludes."""
    excluded: dict[str, set[str]] = {
        "bald": {"brown_hair", "straight_hair"},
        "wavy_hair": {"straight_hair"},
        "goatee": {"no_beard"},
        "mustache": {"no_beard"},
        **{colour: {"brown_hair"} for colour in HAIR_COLOURS},
    }
    person: Any = look.person
    if name in HAIR_COLOURS:
        person = replace(person, hair=HAIR_COLOURS[name])
    if name == "pale_skin":
        person = replace(person, skin=(250, 224, 206))
    if name == "chubby":
        person = replace(person, width=0.93)
    return replace(look, person=person, attributes=(look.attributes - excluded.get(name, set())) | {name})


@pytest.mark.parametrize("name", [name for name in APPEARANCE if name not in _plain()])
def test_each_attribute_is_seen(name: str) -> None:
    take = _film(_plain())
    take = replace(take, moments=take.moments[:1])
    [(before, _)], [(after, _)] = film(take, SIZE), film(replace(take, look=_with(take.look, name)), SIZE)
    changed = np.abs(before.astype(int) - after).max(axis=2) > 24
    # The smallest are brows and bags of a face of 96 pixels.
    assert changed.sum() > 60


def test_hair_of_the_label_map_is_long_where_the_attribute_says_so() -> None:
    short, long = (_maps(_film(look)) for look in (_plain(), _with(_plain(), "long_hair")))
    below = slice(round(0.75 * SIZE), None)
    assert not (short[:, below] == HAIR).any()
    assert ((long[:, below] == HAIR).sum(axis=(1, 2)) > 100).all()


def _corners(maps: Labels) -> float:
    """How far the ends of the mouth lie above its middle, in pixels, as a mean over frames."""
    lifts = []
    for labels in maps:
        rows, columns = np.nonzero(labels == MOUTH)
        left, right = columns.min(), columns.max()
        ends = rows[(columns <= left + 1) | (columns >= right - 1)].mean()
        lifts.append(rows[np.abs(columns - (left + right) / 2) < 4].mean() - ends)
    return float(np.mean(lifts))


def test_emotions_are_seen_in_mouth_and_eyes() -> None:
    maps = {name: _maps(_film(_plain(), (), {name: 3.0})) for name in EMOTIONS}
    calm = _maps(_film(_plain()))
    assert _corners(maps["happy"]) > _corners(calm) + 4
    assert _corners(maps["sad"]) < _corners(calm) - 4
    assert _areas(maps["surprise"], MOUTH).mean() > 1.5 * _areas(calm, MOUTH).mean()
    for wide, narrow in (("surprise", "sad"), ("fear", "disgust")):
        assert _areas(maps[wide], LEFT_EYE).mean() > 1.2 * _areas(maps[narrow], LEFT_EYE).mean()
    for weaker, stronger in ((1.0, 2.0), (2.0, 3.0)):
        assert _corners(_maps(_film(_plain(), (), {"happy": weaker}))) < _corners(
            _maps(_film(_plain(), (), {"happy": stronger}))
        )


def _offset(maps: Labels, axis: int) -> NDArray[np.float64]:
    """Where the nose is within the face (x or y), in pixels."""
    face = _middles(maps, SKIN, LEFT_EYE, RIGHT_EYE, NOSE, MOUTH)
    return (_middles(maps, NOSE) - face)[:, axis]


def _tilt(maps: Labels) -> NDArray[np.float64]:
    across = _middles(maps, LEFT_EYE) - _middles(maps, RIGHT_EYE)
    return np.degrees(np.arctan2(across[:, 1], across[:, 0]))


def test_actions_are_seen() -> None:
    maps = {action: _maps(_film(_plain(), (action,))) for action in ACTIONS}
    calm = _maps(_film(_plain()))
    assert np.ptp(_offset(maps["shake_head"], 0)) > 3 * np.ptp(_offset(calm, 0))
    assert np.ptp(_offset(maps["nod"], 1)) > 3 * np.ptp(_offset(calm, 1))
    assert np.abs(_offset(maps["turn"], 0)).mean() > 3 * np.abs(_offset(calm, 0)).mean()
    assert np.ptp(_tilt(maps["head_wagging"])) > 15 > 3 * np.ptp(_tilt(calm)) / 2
    assert _corners(maps["smile"]) > _corners(calm) + 3
    assert _corners(maps["frown"]) < _corners(calm) - 2
    assert _areas(maps["yawn"], MOUTH).max() > 2 * _areas(calm, MOUTH).max()
    assert np.ptp(_areas(maps["talk"], MOUTH)) > 3 * np.ptp(_areas(calm, MOUTH))
    left, right = (_areas(maps["wink"], eye) for eye in (LEFT_EYE, RIGHT_EYE))
    apart = np.abs(np.log(left / right))
    assert apart.max() > 0.4
    shut = _areas(maps["close_eyes"], LEFT_EYE) < 0.7 * np.median(_areas(calm, LEFT_EYE))
    blinks = _areas(calm, LEFT_EYE) < 0.7 * np.median(_areas(calm, LEFT_EYE))
    assert shut.mean() > 0.4 > blinks.mean() + 0.1


def _eye_shades(take: Take) -> Iterator[float]:
    """Where the dark of an eye is within it, -1 (left of the picture) to 1."""
    for rgb, labels in film(take, SIZE):
        rows, columns = np.nonzero(labels == LEFT_EYE)
        lower = rows > np.percentile(rows, 60)
        weight = 255.0 - rgb[rows[lower], columns[lower]].mean(axis=1)
        middle = (weight * columns[lower]).sum() / weight.sum()
        yield float((middle - columns[lower].mean()) / np.ptp(columns[lower]))


def test_eyes_that_look_around_move() -> None:
    calm, around = (list(_eye_shades(_film(_plain(), actions))) for actions in ((), ("look_around",)))
    assert np.ptp(around) > 2 * np.ptp(calm)


def test_nearer_everything_is_larger_and_in_the_middle() -> None:
    take = _film(_plain())
    wide, near = _maps(take), np.stack([labels for _, labels in film(take, SIZE, 1.5)])
    for region in (LEFT_EYE, RIGHT_EYE, NOSE, MOUTH):
        assert _areas(near, region).sum() / _areas(wide, region).sum() == pytest.approx(1.5**2, rel=0.15)
    middle = np.array([0.5, 0.53]) * SIZE
    np.testing.assert_allclose(_middles(near, NOSE) - middle, 1.5 * (_middles(wide, NOSE) - middle), atol=2)


def test_pictures_are_not_trivial() -> None:
    """Noise, light and motion: no two frames are equal, and skin is not of one colour."""
    frames = list(film(_film(_plain()), SIZE))
    for (one, _), (other, _) in pairwise(frames):
        assert (one != other).mean() > 0.5
    rgb, labels = frames[0]
    assert rgb[labels == SKIN].std(axis=0).min() > 8
