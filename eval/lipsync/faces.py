"""Talking faces of a dataset: frames with the sound to them.

Shapes: F frames, S×S pixels, M×L a spectrogram, h×w patches.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.lipsync.mel import FPS, FRAMES, Mel, mel_spectrogram
from eval.lipsync.sync_scores import REACH
from eval.sequences import FrameSequence, frame_sequences, read_clip, read_part
from pipeline.dataset import Dataset
from pipeline.errors import MarlinError
from pipeline.storage import Store
from preprocess.decode.audio import RATE, Sound, read_sound
from preprocess.quarantine import BadSource
from preprocess.regions import REGIONS

Image = NDArray[np.uint8]

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; the ends are exclusive."""

LEAST = REACH + FRAMES
"""Frames that a face needs for its sync to be measured; for a generator's reference, two of its clips."""

FEWEST = 3
"""Faces to measure on: each is heard with the sounds of two others."""

_RATES_APART = 0.01
_MOUTH = REGIONS.index("mouth")
_KEPT = 4096  # spectrograms of so many faces are kept, 80 KB each for three seconds
_ROOM = 1 << 30  # and frames of so many bytes: small datasets are decoded once


@dataclass(frozen=True)
class TalkingFace:
    """One face through consecutive frames; who it is, as far as the corpus tells."""

    sequence: FrameSequence
    identity: str

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return self.sequence.frames

    @property
    def name(self) -> str:
        """Its name in the dataset, the same in every run."""
        return self.sequence.samples[0].key


@dataclass(frozen=True)
class TalkingFaces:
    """The faces of a dataset to learn from and to measure on, and where they lie.

    Attributes:
        train: to learn from.
        held_out: the official validation split, to look at while learning; empty where that is what is measured on.
        scored: to measure on.
        split: whose faces `scored` are: "test", or "val" where there is no test.
        silent: samples that were left out because they have no sound.
        short: faces that were left out because they are seen for too few frames.
        shared_people: how many of those to measure on are seen in the training, too.
    """

    train: tuple[TalkingFace, ...]
    held_out: tuple[TalkingFace, ...]
    scored: tuple[TalkingFace, ...]
    split: str
    silent: int
    short: int
    shared_people: int


def talking_faces(dataset: Dataset, max_silent: float, clip: int = FRAMES) -> TalkingFaces:
    """The faces of a dataset that can be seen and heard long enough.

    Args:
        dataset: with its sound, at 25 frames a second.
        max_silent: share of samples that may have no sound; they are left out.
        clip: frames that a generator draws at once; a face needs as many again for a reference apart from them.

    Raises:
        MarlinError: it has none to learn from or too few to measure on, too little sound, another frame rate, or parts
            of a video to learn from and others to measure on.
    """
    _check_rate(dataset)
    heard = [sample for sample in dataset.samples if "flac" in sample.parts]
    silent = len(dataset.samples) - len(heard)
    if silent > max_silent * len(dataset.samples):
        raise MarlinError(
            f"lipsync needs sound, and {silent} of {len(dataset.samples)} samples of {dataset.url} have none: "
            "preprocess it with preprocess.audio=true, from videos with a sound track, or raise eval.max_unlabelled"
        )
    faces = [TalkingFace(each, each.samples[0].identity) for each in frame_sequences(heard)]
    least = max(LEAST, 2 * clip)
    long = [face for face in faces if face.frames >= least]
    split = "test" if any(face.sequence.split == "test" for face in long) else "val"
    train, val, scored = (tuple(f for f in long if f.sequence.split == name) for name in ("train", "val", split))
    if not train or len(scored) < FEWEST:
        raise MarlinError(
            f"lipsync learns from split 'train' and is measured on {FEWEST} or more faces of split 'test' or 'val', of "
            f"{least} frames each: {dataset.url} has {len(train)} and {len(scored)}; set "
            "preprocess.holdout_identities, or give the corpus its official lists (corpus.splits)"
        )
    _check_apart(train, scored, dataset.url)
    shared = {face.identity for face in train} & {face.identity for face in scored}
    held_out = val if split == "test" else ()
    return TalkingFaces(train, held_out, scored, split, silent, len(faces) - len(long), len(shared))


def _check_apart(train: Sequence[TalkingFace], scored: Sequence[TalkingFace], where: str) -> None:
    if both := sorted({face.sequence.source for face in train} & {face.sequence.source for face in scored}):
        raise MarlinError(
            f"{where} holds out parts of the videos that lipsync would learn from, as {both[0]}, and it is to be "
            "measured on faces that it never saw: preprocess with preprocess.holdout_identities instead of "
            "preprocess.holdout"
        )


def _check_rate(dataset: Dataset) -> None:
    for unit in dataset.units:
        for source in unit["sources"]:
            if abs(source["fps"] - FPS) > _RATES_APART:
                raise MarlinError(
                    f"lipsync needs {FPS} frames a second, and {source['source']} of {dataset.url} has "
                    f"{source['fps']:g}: preprocess it with preprocess.fps={FPS}"
                )


class FaceReader:
    """Reads faces of a dataset at a size; safe to be asked by several threads.

    Attributes:
        size: side of the frames it gives.
    """

    def __init__(self, store: Store, size: int) -> None:
        self.size = size
        self._store = store
        self._mels: dict[str, Mel] = {}
        self._faces: dict[str, Image] = {}
        self._room = _ROOM
        self._reserved: set[str] = set()
        self._lock = Lock()

    def frames(self, face: TalkingFace, index_F: NDArray[np.int64]) -> Image:
        """Some frames (F, S, S, 3) RGB of a face, in the order asked for; one may come several times."""
        kept = self._faces.get(face.name)
        if kept is None and self._reserve(face):
            kept = sized(read_clip(self._store, face.sequence, np.arange(face.frames)), self.size)
            self._faces[face.name] = kept
        if kept is not None:
            return kept[index_F]
        return sized(read_clip(self._store, face.sequence, index_F), self.size)

    def _reserve(self, face: TalkingFace) -> bool:
        """Whether there is room to keep a face, which then is the caller's to read."""
        size = face.frames * self.size**2 * 3
        with self._lock:
            if face.name in self._reserved or size > self._room:
                return False
            self._reserved.add(face.name)
            self._room -= size
            return True

    def mel(self, face: TalkingFace) -> Mel:
        """The spectrogram of what is heard from the first frame of a face to its last.

        Raises:
            MarlinError: the sound of a sample is damaged.
        """
        found = self._mels.get(face.name)
        if found is None:
            found = mel_spectrogram(self._sound(face))
            if len(self._mels) < _KEPT:
                self._mels[face.name] = found
        return found

    def mouths(self, face: TalkingFace, grid: int) -> list[Box | None]:
        """The box of the mouth in each frame, of the patches that it touches; None where none is seen.

        Args:
            face: whose mouth.
            grid: patches in a row of the dataset.
        """
        parts = [read_part(self._store, sample, "regions.npy") for sample in face.sequence.samples]
        patches_FHW = np.concatenate([np.load(io.BytesIO(part), allow_pickle=False) for part in parts])
        return [_box((patches_HW >> _MOUTH) & 1 == 1, self.size / grid) for patches_HW in patches_FHW]

    def _sound(self, face: TalkingFace) -> Sound:
        whole = np.zeros(round(face.frames * RATE / FPS))
        first = 0
        for sample in face.sequence.samples:
            try:
                sound = read_sound(io.BytesIO(read_part(self._store, sample, "flac")))
            except BadSource as bad:
                what = f"the sound of sample {sample.key} in {sample.shard} can't be read ({bad})"
                raise MarlinError(f"{what}: verify the dataset") from None
            room = whole[round(first * RATE / FPS) :][: len(sound)]
            room[:] = sound[: len(room)]
            first += sample.frames
        return whole


def sized(frames_FSS3: Image, size: int) -> Image:
    """Frames at another size."""
    given = frames_FSS3.shape[1]
    if given == size:
        return frames_FSS3
    how = cv2.INTER_AREA if given > size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (size, size), interpolation=how) for frame in frames_FSS3]).astype(np.uint8)


def _box(mouth_HW: NDArray[np.bool_], scale: float) -> Box | None:
    rows, columns = (np.flatnonzero(mouth_HW.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    left, top, right, bottom = (round(v * scale) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return left, top, right, bottom
