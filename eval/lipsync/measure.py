"""What a generator is worth on faces it never saw, by a judge that it did not learn from.

Each face is drawn twice: with its own sound, to be compared with what it really looked like, and with that of another
face, as in dubbing, where only the judge can say how well it went.

Shapes: F frames, S×S pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from eval.features import best_device
from eval.lipsync.drawing import embed_lips, embed_sound, redraw, reference_of
from eval.lipsync.faces import FaceReader, Image, TalkingFace
from eval.lipsync.generator import Generator
from eval.lipsync.margins import Margin, margin
from eval.lipsync.pictures import Frechet, mouth_scores
from eval.lipsync.sync_scores import Sync, sync_of
from eval.lipsync.syncnet import SyncNet

NEAR = 1
"""A sound counts as in step when it is found so few frames away, as in SyncNet's paper."""


@dataclass(frozen=True)
class Ask:
    """What to measure on.

    Attributes:
        reader: gives faces at the generator's size.
        faces: three or more.
        judge: of sync.
        grid: patches in a row of the dataset's regions.
        inception: weights for FID, or empty.
        resamples, seed: of the intervals.
        progress: show a bar.
    """

    reader: FaceReader
    faces: Sequence[TalkingFace]
    judge: SyncNet
    grid: int
    inception: str
    resamples: int
    seed: int
    progress: bool = False


@dataclass(frozen=True)
class Found:
    """What was found of one face.

    Attributes:
        real: the untouched video with its own sound.
        untouched: the untouched video with the sound of another face.
        own: drawn with its own sound.
        dubbed: drawn with the sound of another face.
        contrast: drawn with that, and judged with the sound of a third; of a third person where there is one.
        drawn, copied: PSNR and structural similarity of the mouth where it was drawn with its own sound, and where the
            reference's lower half was put in its place; None where no mouth is seen.
    """

    real: Sync
    untouched: Sync
    own: Sync
    dubbed: Sync
    contrast: Sync
    drawn: tuple[float, float] | None
    copied: tuple[float, float] | None


def measure(generator: Generator, ask: Ask) -> dict[str, Any]:
    """Metrics, margins with their intervals, and counts; JSON-ready.

    Raises:
        MarlinError: a file can't be read.
    """
    frechet = Frechet(ask.inception) if ask.inception else None
    generator.to(best_device())
    ask.judge.to(best_device())
    with tqdm(total=len(ask.faces), desc="dubbing", unit="video", disable=not ask.progress) as bar:
        found = []
        for each in _each(generator, ask, frechet):
            found.append(each)
            bar.update()
    metrics = _metrics(found)
    if frechet is not None:
        metrics["fid"] = frechet.distance()
    people = [face.identity for face in ask.faces]
    told = {name: _margin(values, people, ask) for name, values in _margins(found).items()}
    return {
        "metrics": metrics,
        "margins": {name: {"mean": one.mean, "interval": one.interval} for name, one in told.items() if one},
        "videos": len(found),
        "people": len(set(people)),
    }


def sounds_of_others(faces: Sequence[TalkingFace]) -> list[tuple[int, int]]:
    """For each of three or more faces two others to hear, of other people and of two where there are any."""
    chosen = []
    for place, face in enumerate(faces):
        others = [(place + step) % len(faces) for step in range(1, len(faces))]
        heard = min(others, key=lambda at: faces[at].identity == face.identity)  # of equals the first
        others.remove(heard)
        known = (face.identity, faces[heard].identity)
        third = min(others, key=lambda at: (faces[at].identity in known, faces[at].identity == face.identity))
        chosen.append((heard, third))
    return chosen


def copied_lower(frames_FSS3: Image) -> Image:
    """Faces with the lower half of their reference: the guess of a generator that knows no sound."""
    copied = frames_FSS3.copy()
    half = frames_FSS3.shape[1] // 2
    index = reference_of(np.arange(len(frames_FSS3)), len(frames_FSS3))
    copied[:, half:] = frames_FSS3[index, half:]
    return copied


def _each(generator: Generator, ask: Ask, frechet: Frechet | None) -> Iterator[Found]:
    pairs = sounds_of_others(ask.faces)
    for face, (heard, third) in zip(ask.faces, pairs, strict=True):
        sounds = [ask.reader.mel(one) for one in (face, ask.faces[heard], ask.faces[third])]
        frames = min(face.frames, ask.faces[heard].frames, ask.faces[third].frames)
        real = ask.reader.frames(face, np.arange(frames))
        own, dubbed = (redraw(generator, real, mel) for mel in sounds[:2])
        if frechet is not None:
            frechet.add(real, real=True)
            frechet.add(dubbed, real=False)
        lips = [embed_lips(ask.judge, shown) for shown in (real, own, dubbed)]
        said = [embed_sound(ask.judge, mel, frames) for mel in sounds]
        mouths = ask.reader.mouths(face, ask.grid)[:frames]
        yield Found(
            real=sync_of(lips[0], said[0]),
            untouched=sync_of(lips[0], said[1]),
            own=sync_of(lips[1], said[0]),
            dubbed=sync_of(lips[2], said[1]),
            contrast=sync_of(lips[2], said[2]),
            drawn=mouth_scores(own, real, mouths),
            copied=mouth_scores(copied_lower(real), real, mouths),
        )


def _metrics(found: Sequence[Found]) -> dict[str, float]:
    syncs: Mapping[str, list[Sync]] = {
        "": [one.dubbed for one in found],
        "own_": [one.own for one in found],
        "real_": [one.real for one in found],
        "untouched_": [one.untouched for one in found],
        "contrast_": [one.contrast for one in found],
    }
    metrics = {}
    for prefix, each in syncs.items():
        metrics[f"{prefix}lse_d"] = float(np.mean([one.distance for one in each]))
        metrics[f"{prefix}lse_c"] = float(np.mean([one.confidence for one in each]))
    for prefix in ("", "real_"):
        metrics[f"{prefix}in_step"] = float(np.mean([abs(one.offset) <= NEAR for one in syncs[prefix]]))
    for prefix, scores in (("", [one.drawn for one in found]), ("copied_", [one.copied for one in found])):
        seen = [score for score in scores if score is not None]
        if seen:
            metrics[f"{prefix}psnr"], metrics[f"{prefix}ssim"] = np.mean(seen, axis=0).tolist()
    return metrics


def _margins(found: Sequence[Found]) -> dict[str, list[float | None]]:
    """How much better each video is than what it is compared with; more is better in all of them."""
    return {
        "lse_d_than_other_sound": [one.contrast.distance - one.dubbed.distance for one in found],
        "lse_d_than_untouched": [one.untouched.distance - one.dubbed.distance for one in found],
        "psnr_than_copied": [one.drawn[0] - one.copied[0] if one.drawn and one.copied else None for one in found],
    }


def _margin(values: Sequence[float | None], people: Sequence[str], ask: Ask) -> Margin | None:
    kept = [(value, person) for value, person in zip(values, people, strict=True) if value is not None]
    if not kept:
        return None
    numbers, whose = zip(*kept, strict=True)
    return margin(numbers, whose, resamples=ask.resamples, seed=ask.seed)
