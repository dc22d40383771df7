"""Drawn corpora in the layouts of published ones: which videos there are, and the label files and lists beside them."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import UsageError
from preprocess.drawing import FPS
from preprocess.drawing.film import Swap
from preprocess.drawing.looks import APPEARANCE, Look, Person, appearance_labels, draw_person, dress
from preprocess.drawing.motion import ACTIONS, EMOTIONS, STRONGEST, Script
from preprocess.drawing.roles import MouthForgery, Role, face_of
from preprocess.drawing.speech import Utterance, speak

PEOPLE = 3
"""Fewest people of a corpus: one for each split."""

_SPLITS = ("train", "val", "test", "train", "train")
_CLIPS = 4
_CRF, _CRF_C40 = 22, 30
_PERSON, _CLIP = range(2)

_HEADS = ("nod", "shake_head", "head_wagging", "turn", "")
_FACES = ("smile", "frown", "")
_EYES = ("close_eyes", "wink", "look_around", "", "")
_MOUTHS = ("talk", "talk", "yawn", "")


@dataclass(frozen=True)
class Request:
    """What was asked for: `videos` of `frames` frames, by a seed."""

    videos: int
    frames: int
    seed: int


@dataclass(frozen=True)
class Corpus:
    """A corpus that is not drawn yet.

    Attributes:
        roles: what each video shows, by its path.
        files: label files and lists by their paths.
        splits: how many videos are in each split.
        people: how many are seen.
        settings: what the configuration needs besides kind and path to read it.
        crf: quality of the pictures.
    """

    roles: Mapping[str, Role]
    files: Mapping[str, str]
    splits: Mapping[str, int]
    people: int
    settings: Sequence[str] = ()
    crf: int = _CRF


@dataclass(frozen=True)
class _Cast:
    """People of a corpus, and the videos of each: in turns, so that all have about as many."""

    kind: int
    request: Request
    people: tuple[Person, ...]

    @classmethod
    def of(cls, kind: int, request: Request, count: int) -> "_Cast":
        people = (draw_person(np.random.default_rng((request.seed, kind, _PERSON, number))) for number in range(count))
        return cls(kind, request, tuple(people))

    def seed(self, *what: int) -> tuple[int, ...]:
        """Of something in a video."""
        return (self.request.seed, self.kind, _CLIP, *what)

    def videos(self) -> list[tuple[int, int]]:
        """Person and number of each video, by person."""
        count = len(self.people)
        return sorted((video % count, video // count) for video in range(self.request.videos))

    def look(self, person: int, number: int) -> tuple[Look, np.random.Generator]:
        """A person as in one video, and the dice for all else in it."""
        dice = np.random.default_rng(self.seed(person, number))
        return dress(self.people[person], dice), dice

    def says(self, dice: np.random.Generator) -> Utterance:
        """Something to say in the time of a video."""
        return speak(dice, self.request.frames / FPS)


def _several_each(kind: int, request: Request) -> _Cast:
    """A cast with about four videos of each person."""
    if request.videos < PEOPLE:
        raise UsageError(f"--videos {request.videos} is too few: give {PEOPLE} or more, one for each split")
    return _Cast.of(kind, request, max(PEOPLE, round(request.videos / _CLIPS)))


def split_of(person: int) -> str:
    """The split that a person is in, with all videos."""
    return _SPLITS[person % len(_SPLITS)]


def celebv_hq(kind: int, request: Request) -> Corpus:
    """CelebV-HQ: clips of people with attributes and actions, and lists of clips."""
    cast = _several_each(kind, request)
    roles: dict[str, Role] = {}
    clips: dict[str, Any] = {}
    lists: dict[str, list[str]] = {split: [] for split in ("train", "val", "test")}
    for person, number in cast.videos():
        look, dice = cast.look(person, number)
        actions = _actions(look, dice)
        said = cast.says(dice) if "talk" in actions else Utterance()
        clip = f"drawn{person:06d}_{number}"
        roles[f"videos/{clip}.mp4"] = Role(look, Script(actions, {}, said), cast.seed(person, number))
        lists[split_of(person)].append(clip)
        clips[clip] = {
            "ytb_id": f"drawn{person:06d}",
            "duration": {"start_sec": 0.0, "end_sec": request.frames / FPS},
            "bbox": {"top": 0.0, "bottom": 1.0, "left": 0.0, "right": 1.0},
            "attributes": {
                "appearance": appearance_labels(look),
                "action": [int(action in actions) for action in ACTIONS],
            },
        }
    mappings = {"appearance_mapping": list(APPEARANCE), "action_mapping": list(ACTIONS)}
    files = {"celebvhq_info.json": _json({"meta_info": mappings, "clips": clips})}
    files |= {f"splits/{split}.txt": _lines(names) for split, names in lists.items()}
    return Corpus(roles, files, _sizes(lists), len(cast.people), ("corpus.splits=splits",))


def mosei(kind: int, request: Request) -> Corpus:
    """CMU-MOSEI: spoken segments with emotions, a sentiment that follows from them, and the transcript."""
    cast = _several_each(kind, request)
    roles: dict[str, Role] = {}
    rows = []
    lists: dict[str, list[str]] = {split: [] for split in ("train", "val", "test")}
    for person, number in cast.videos():
        look, dice = cast.look(person, number)
        emotions = _emotions(dice)
        script = Script(frozenset({"talk"}), emotions, cast.says(dice))
        name = f"drawn{person:06d}"
        roles[f"Raw/Videos/Segmented/Combined/{name}_{number}.mp4"] = Role(look, script, cast.seed(person, number))
        split = split_of(person)
        lists[split].append(name)
        mode = "valid" if split == "val" else split
        rows.append([name, number, sentiment(emotions), *emotions.values(), script.said.text, mode])
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["video_id", "clip_id", "sentiment", *EMOTIONS, "text", "mode"])
    writer.writerows(rows)
    return Corpus(roles, {"labels.csv": table.getvalue()}, _sizes(lists), len(cast.people))


def sentiment(emotions: Mapping[str, float]) -> float:
    """-3 to 3: how happy the face is, less the strongest of what is unpleasant; surprise is neither."""
    unpleasant = max(emotions[name] for name in ("sad", "anger", "disgust", "fear"))
    return round(emotions["happy"] - unpleasant, 4)


def ffpp(kind: int, request: Request) -> Corpus:
    """FaceForensics++ in c40: `videos` originals in pairs, and four forgeries of each, made with its partner."""
    count = request.videos
    if count < 2 * PEOPLE or count % 2:
        raise UsageError(
            f"--videos {count}: FaceForensics++ has pairs of originals, each forged in four ways: "
            f"give an even number, {2 * PEOPLE} or more"
        )
    cast = _Cast.of(kind, request, count)
    originals = [_original(cast, number) for number in range(count)]
    roles: dict[str, Role] = {}
    pairs: dict[str, list[tuple[str, str]]] = {split: [] for split in ("train", "val", "test")}
    for number, role in enumerate(originals):
        partner = number ^ 1
        roles[f"original_sequences/youtube/c40/videos/{number:03d}.mp4"] = role
        dice = np.random.default_rng(cast.seed(number, 1))
        for method, forgery in _forgeries(role, originals[partner], dice).items():
            path = f"manipulated_sequences/{method}/c40/videos/{number:03d}_{partner:03d}.mp4"
            roles[path] = Role(role.look, role.script, role.seed, forgery)
        if number < partner:
            pairs[split_of(number // 2)].append((f"{number:03d}", f"{partner:03d}"))
    files = {f"splits/{split}.json": _json(listed) for split, listed in pairs.items()}
    splits = {split: len(listed) * len(roles) // (count // 2) for split, listed in pairs.items()}
    settings = ("corpus.compression=c40",)
    return Corpus(roles, files, splits, count, settings, _CRF_C40)


def lrs2(kind: int, request: Request) -> Corpus:
    """LRS2: spoken sentences with transcripts, and lists of them."""
    cast = _several_each(kind, request)
    roles: dict[str, Role] = {}
    files: dict[str, str] = {}
    lists: dict[str, list[str]] = {split: [] for split in ("train", "val", "test")}
    for person, number in cast.videos():
        look, dice = cast.look(person, number)
        script = Script(frozenset({"talk"}), {}, cast.says(dice))
        name = f"{person:06d}/{number:05d}"
        roles[f"mvlrs_v1/main/{name}.mp4"] = Role(look, script, cast.seed(person, number))
        files[f"mvlrs_v1/main/{name}.txt"] = f"Text:  {script.said.text}\nConf:  9\n"
        lists[split_of(person)].append(name)
    files |= {f"{split}.txt": _lines(names) for split, names in lists.items()}
    return Corpus(roles, files, _sizes(lists), len(cast.people))


LAYOUTS: Mapping[str, Callable[[int, Request], Corpus]] = {
    "celebv-hq": celebv_hq,
    "mosei": mosei,
    "ffpp": ffpp,
    "lrs2": lrs2,
}
"""By `corpus.kind`; a kind's place here is part of its seeds."""


def plan_corpus(kind: str, request: Request) -> Corpus:
    """The corpus of a kind.

    Raises:
        UsageError: so few videos make no such corpus.
    """
    return LAYOUTS[kind](list(LAYOUTS).index(kind), request)


def _actions(look: Look, dice: np.random.Generator) -> frozenset[str]:
    """One thing at most that each part of the face does; nobody sees what eyes do behind sunglasses."""
    chosen = {str(dice.choice(names)) for names in (_HEADS, _FACES, _EYES, _MOUTHS)}
    return frozenset(chosen - {""} - (set(_EYES) if "sunglasses" in look else set()))


def _emotions(dice: np.random.Generator) -> dict[str, float]:
    """Intensities in thirds, as three annotators make them: of one emotion, of two, or of none."""
    first, second = dice.permutation(len(EMOTIONS))[:2]
    kind, strong, weak = dice.random(), int(dice.integers(4, 10)), int(dice.integers(1, 4))
    thirds = dict.fromkeys(EMOTIONS, 0)
    if kind > 0.15:
        thirds[EMOTIONS[first]] = strong
    if kind > 0.7:
        thirds[EMOTIONS[second]] = weak
    return {name: round(value * STRONGEST / 9, 4) for name, value in thirds.items()}


def _original(cast: _Cast, number: int) -> Role:
    look, dice = cast.look(number, 0)
    return Role(look, Script(frozenset({"talk"}), {}, cast.says(dice)), cast.seed(number, 0))


def _forgeries(target: Role, source: Role, dice: np.random.Generator) -> dict[str, MouthForgery | Swap]:
    inner = face_of(source.look.person, target.look)
    return {
        "Deepfakes": Swap(inner, _tint(dice, 0.06), share=0.82, soft=0.09),
        "Face2Face": MouthForgery(source.script.said, reach=2, jitter=0.08),
        "FaceSwap": Swap(inner, _tint(dice, 0.1), share=0.88, soft=0.03),
        "NeuralTextures": MouthForgery(target.script.said, reach=10, jitter=0.05),
    }


def _tint(dice: np.random.Generator, most: float) -> tuple[float, float, float]:
    """A mismatch of colours: red and blue go apart."""
    red = most * float(dice.choice([-1.0, 1.0]))
    return 1 + red, 1 - red / 4, 1 - red


def _sizes(lists: Mapping[str, Sequence[str]]) -> dict[str, int]:
    return {split: len(names) for split, names in lists.items()}


def _lines(names: Sequence[str]) -> str:
    return "".join(f"{name}\n" for name in names)


def _json(content: object) -> str:
    return json.dumps(content, indent=1) + "\n"
