"""`marlin lipsync`: a video whose lips go with another sound.

Shapes: F frames of a face track, S×S pixels.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import av
import numpy as np

from eval.features import best_device
from eval.kept import WEIGHTS, weights_key
from eval.lipsync.drawing import redraw
from eval.lipsync.faces import Image
from eval.lipsync.film import write_film
from eval.lipsync.generator import Form, Generator
from eval.lipsync.mel import FPS, Mel, mel_spectrogram
from eval.lipsync.paste import paste
from eval.lipsync.weights import read_generator
from eval.loading import trained_config
from eval.results import read_result
from eval.videos import face_networks
from pipeline.checkpoints import find_checkpoint
from pipeline.config.load import override, validate
from pipeline.config.schema import PreprocessConfig
from pipeline.errors import MarlinError, UsageError
from pipeline.storage import NotFound
from pipeline.text import nearest
from preprocess.arrays import Floats
from preprocess.corpora.clip import Clip
from preprocess.decode.audio import RATE, read_sound
from preprocess.follow import FaceTrack, find_tracks, read_crops, video_clip, whole_picture
from preprocess.quarantine import BadSource

TASK = "lipsync"
_SHORTEST = 0.2
"""Seconds of sound; less is no speech."""


@dataclass(frozen=True)
class Dubbed:
    """What was written: how many frames, how many of them with a face that was drawn anew."""

    frames: int
    drawn: int


def dub_video(
    video: str,
    sound: str,
    out: Path,
    checkpoint: str,
    overrides: Sequence[str] = (),
    *,
    encoder: str = "",
    cropped: bool = False,
) -> Dubbed:
    """Write a video with lips that go with a sound, as long as the sound.

    A video that is longer is cut, a shorter one begins again. Where no face is seen, its frames stay as they are; of
    several at once the one is dubbed that is seen longest. Frames are resampled to 25 a second.

    Args:
        video: path; its own sound is not used.
        sound: path of a file of any kind, rate and number of channels.
        out: MP4 file to write, whole or not at all.
        checkpoint: a generator's file, or URL of a run or checkpoint on which the task lipsync was run.
        overrides: `preprocess.key=value`, how faces are found, on top of what the checkpoint was trained with.
        encoder: which of its generators, by face encoder; empty: the first.
        cropped: the video shows nothing but a face.

    Raises:
        UsageError: the name is not an MP4's, an override is wrong, or there is no such generator.
        MarlinError: video or sound can't be used.
    """
    if out.suffix != ".mp4":
        raise UsageError(f"{out}: the name must end with .mp4")
    generator = open_generator(checkpoint, encoder).to(best_device())
    cfg = face_settings(checkpoint, generator.form, overrides)
    mel, frames = _heard(sound)
    try:
        clip = video_clip(Path(video))
        tracks = [whole_picture(clip, cfg)] if cropped else find_tracks(clip, cfg, *face_networks(cfg))
        faces = _crops(clip, in_turn(tracks, frames), cfg)
        length, size = _length_and_size(clip)
        dubbed = _Dubbing(clip, length, faces, generator, mel)
        comment = f"Synthetic: lips drawn by marlin lipsync to the sound of {Path(sound).name}"
        write_film(out, dubbed.frames(frames), size, Path(sound), comment)
    except (BadSource, av.FFmpegError) as bad:
        raise MarlinError(f"{video}: {bad}") from None
    return Dubbed(frames, dubbed.drawn)


def open_generator(checkpoint: str, encoder: str = "") -> Generator:
    """A generator by its file, or by the run or checkpoint whose result names it.

    Raises:
        UsageError: there is none, or none with that encoder.
        MarlinError: the file is damaged or gone.
    """
    file = Path(checkpoint)
    if file.is_file():
        generator = read_generator(file)
        if encoder not in ("", generator.form.encoder):
            raise UsageError(f"{file} has no generator {encoder!r}: its face encoder is {generator.form.encoder}")
        return generator
    run, published = find_checkpoint(checkpoint)
    result = read_result(run, published, TASK)
    if result is None:
        raise UsageError(
            f"{published.name} of {run.url} has no generator: `marlin eval … eval.tasks=[lipsync]` trains one"
        )
    names: Sequence[str] = [each["encoder"] for each in result["encoders"]]
    chosen = encoder or names[0]
    if chosen not in names:
        raise UsageError(f"{published.name} of {run.url} has no generator {chosen!r}{nearest(chosen, names)}")
    key = weights_key(published, result[WEIGHTS][chosen])
    with tempfile.TemporaryDirectory(prefix="marlin-lipsync-") as folder:
        path = Path(folder) / "generator.safetensors"
        try:
            run.fetch(key, path)
        except NotFound:
            raise MarlinError(f"{run.url}/{key} is gone: remove {TASK}.json beside it, and evaluate again") from None
        return read_generator(path)


def face_settings(checkpoint: str, form: Form, overrides: Sequence[str] = ()) -> PreprocessConfig:
    """How faces are found, as what the checkpoint was trained on; and cut out, as what the generator was.

    Args:
        checkpoint: as for `open_generator`; of a generator's file alone only the defaults are known.
        form: the generator's.
        overrides: `preprocess.key=value`.

    Raises:
        UsageError: an override is wrong, or of another section.
    """
    for each in overrides:
        if not each.startswith("preprocess."):
            raise UsageError(f"{each} says nothing of how faces are found: give preprocess.key=value")
    if Path(checkpoint).is_file():
        base = validate({"train": {"steps": 1}}, "defaults")  # nothing is trained, but a configuration says how long
    else:
        base = trained_config(*find_checkpoint(checkpoint))
    cut = {"fps": FPS, "size": form.size, "patch": form.size, "margin": form.margin}
    return override(base, overrides).preprocess.model_copy(update=cut)


def in_turn(tracks: Sequence[FaceTrack], frames: int) -> list[FaceTrack]:
    """What is dubbed of some tracks: at every moment the one that is seen longest, in the order of time.

    Args:
        tracks: faces that may be seen at once.
        frames: only so many frames of the video are shown.

    Returns:
        Parts of the tracks that do not overlap; of two that are seen equally long it is the earlier one.
    """
    ends = [min(track.start + track.frames, frames) for track in tracks]
    order = sorted(range(len(tracks)), key=lambda n: (ends[n] - tracks[n].start, -tracks[n].start))
    owners = np.full(max(ends), -1)
    for number in order:  # the longest is put over the others
        owners[tracks[number].start : ends[number]] = number
    parts = []
    for number, places in groupby(range(len(owners)), key=owners.__getitem__):
        first, *others = places
        if number >= 0:
            parts.append(_part(tracks[number], first, 1 + len(others)))
    return parts


@dataclass
class _Dubbing:
    """A video on its way to be written.

    Attributes:
        clip: the video.
        length: how many frames it has.
        faces: its faces, one at a time.
        generator: draws them.
        mel: the sound.
        drawn: how many frames with a drawn face there were so far.
    """

    clip: Clip
    length: int
    faces: Mapping[FaceTrack, Image]
    generator: Generator
    mel: Mel
    drawn: int = 0

    def frames(self, count: int) -> Iterator[Image]:
        """So many frames in order; the video begins again where it ends."""
        try:
            for begin in range(0, count, self.length):
                yield from self._round(begin, min(self.length, count - begin))
        except av.FFmpegError as error:  # or it would be taken for one of the file that is written
            raise BadSource("damaged", str(error)) from None

    def _round(self, begin: int, count: int) -> Iterator[Image]:
        """The first frames of the video, with the sound from a frame of it on."""
        drawn = {
            track: redraw(self.generator, crops[: count - track.start], self.mel, begin + track.start)
            for track, crops in self.faces.items()
            if track.start < count
        }
        for frame in self.clip.frames(FPS):
            if frame.index == count:
                return
            shown = frame.rgb
            for track, faces in drawn.items():
                place = frame.index - track.start
                if 0 <= place < track.frames:
                    shown = paste(shown, faces[place], _box(track, place, shown))
                    self.drawn += 1
            yield shown


def _heard(sound: str) -> tuple[Mel, int]:
    """The spectrogram of a file, and how many frames it lasts."""
    try:
        samples = read_sound(Path(sound))
    except (BadSource, av.FFmpegError) as bad:
        raise MarlinError(f"{sound}: {bad}") from None
    seconds = len(samples) / RATE
    if seconds < _SHORTEST:
        raise MarlinError(f"{sound}: it lasts {seconds:.2f} s: give {_SHORTEST} s or more")
    return mel_spectrogram(samples), int(np.ceil(seconds * FPS))


def _part(track: FaceTrack, first: int, count: int) -> FaceTrack:
    squares = None if track.squares is None else track.squares[first - track.start :][:count]
    return replace(track, start=first, frames=count, squares=squares)


def _crops(clip: Clip, tracks: Sequence[FaceTrack], cfg: PreprocessConfig) -> dict[FaceTrack, Image]:
    """The faces (F, S, S, 3) of each track; 27 KB a frame at 96 pixels.

    Raises:
        BadSource: there is none.
    """
    if not tracks:
        raise BadSource("no-face", "no face is seen for as long as the sound lasts")
    faces = {track: np.empty((track.frames, cfg.size, cfg.size, 3), np.uint8) for track in tracks}
    for track, place, crop in read_crops(clip, tracks, cfg):
        faces[track][place] = crop
    return faces


def _length_and_size(clip: Clip) -> tuple[int, tuple[int, int]]:
    """Frames of a clip at 25 a second, and their width and height."""
    length, size = 0, (0, 0)
    for frame in clip.frames(FPS):
        if not length:
            size = frame.rgb.shape[1], frame.rgb.shape[0]
        length = frame.index + 1
    return length, size


def _box(track: FaceTrack, place: int, frame: Image) -> Floats:
    """Centre, width and height of a face in a frame."""
    if track.squares is not None:
        x, y, side = track.squares[place]
        return np.array([x, y, side, side])
    height, width = frame.shape[:2]
    return np.array([width / 2, height / 2, width, height])
