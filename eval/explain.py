"""`marlin explain`: where the encoder looks in the faces of a video, and what speaks for attributes, as one picture.

Shapes: B clips (one here), C channels, T tubelet frames, F frames, H×W patches of a frame, S×S pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch

from eval.attention import Kind, attention_maps
from eval.features import best_device, to_clips
from eval.gradcam import grad_cam
from eval.heads import Output, heads_of, read_head
from eval.heat import over_frames
from eval.loading import open_checkpoint
from eval.pictures import Image, heat_frame
from eval.videos import FaceWindow, face_networks, middle_windows
from pipeline.checkpoints import Checkpoint, find_checkpoint
from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from pipeline.storage import Store
from pipeline.text import nearest, short
from preprocess.corpora.clip import Clip
from preprocess.follow import find_tracks, video_clip, whole_picture
from preprocess.quarantine import BadSource
from preprocess.sheet import DIM, INK, Words, check_png, padded, row, scaled, text_line, write_png
from train.export import load_model
from train.model import MaskedAutoencoder

FACES, COLUMNS, SIDE = 8, 8, 160
"""Most faces on a sheet, most pictures in a row, their side in pixels."""

_LEAST_WIDTH = 960  # for the words above clips that have few pictures
_ATTENTION = {"rollout": "attention, rolled out through all blocks", "last": "attention in the last block"}


@dataclass(frozen=True)
class Explained:
    """A model, what it was trained with, what the sheet calls it, and the outputs of a head to ask."""

    model: MaskedAutoencoder
    cfg: Config
    label: str
    outputs: Sequence[Output] = ()


def explain_video(
    video: str,
    checkpoint: str,
    out: Path,
    *,
    cropped: bool = False,
    attention: Kind = "rollout",
    task: str = "attributes-linear",
    attributes: Sequence[str] = (),
) -> int:
    """Draw the middle window of each face of a video as a PNG; returns how many faces.

    A face has a row of frames, a row under the encoder's attention, and one under Grad-CAM for each attribute.

    Args:
        video: path.
        checkpoint: URL of a run or of one of its checkpoints, or a folder of `marlin export --format safetensors`.
        out: file to write, whole or not at all.
        cropped: the video shows nothing but a face.
        attention: of which kind.
        task: whose head answers for the attributes.
        attributes: outputs of the head.

    Raises:
        UsageError: the name is not a PNG's, or there is no such checkpoint, head or attribute.
        MarlinError: the video can't be used.
    """
    check_png(out)
    asked = _open(checkpoint, task, attributes)
    asked.model.to(best_device())
    try:
        faces = _faces(video_clip(Path(video)), asked.cfg, cropped)
    except (BadSource, av.FFmpegError) as bad:
        raise MarlinError(f"{video}: {bad}") from None
    sheets = [_sheet(asked, face, attention) for face in faces]
    scale = "each row by itself, from dark blue (least) to red (most)"
    title = [(short(Path(video).name, 40), INK), (short(asked.label, 50), DIM), (scale, DIM)]
    write_png(np.concatenate([text_line(title, sheets[0].shape[1]), *sheets]), out)
    return len(faces)


def _open(url: str, task: str, attributes: Sequence[str]) -> Explained:
    folder = Path(url)
    if (folder / "model.safetensors").is_file():
        if attributes:
            raise UsageError(f"{url}: heads lie with runs, not with exported models: give -m the run or its checkpoint")
        return Explained(*load_model(folder), folder.name)
    run, checkpoint = find_checkpoint(url)
    outputs = _outputs(run, checkpoint, task, attributes) if attributes else ()
    with open_checkpoint(run, checkpoint) as (model, cfg):
        return Explained(model, cfg, f"{cfg.run.name} {checkpoint.name}", outputs)


def _outputs(run: Store, checkpoint: Checkpoint, task: str, names: Sequence[str]) -> list[Output]:
    head = read_head(run, checkpoint, task)
    if head is None:
        known = nearest(task, heads_of(run, checkpoint)) or ": no task has left one, `marlin eval` runs those that do"
        raise UsageError(f"{checkpoint.name} of {run.url} has no head of task {task!r}{known}")
    for name in names:
        if name not in head.names:
            raise UsageError(f"task {task} of {checkpoint.name} has no output {name!r}{nearest(name, head.names)}")
    return [head.output(name) for name in names]


def _faces(clip: Clip, cfg: Config, cropped: bool) -> list[FaceWindow]:
    """The middle windows of the faces that are seen longest, in the order of their tracks."""
    if cropped:
        tracks = [whole_picture(clip, cfg.preprocess)]
    else:
        tracks = find_tracks(clip, cfg.preprocess, *face_networks(cfg.preprocess))
    longest = sorted(tracks, key=lambda track: -track.frames)[:FACES]
    return middle_windows(clip, [track for track in tracks if track in longest], cfg)


def _sheet(asked: Explained, face: FaceWindow, attention: Kind) -> Image:
    """One face: frames spread over its window, and the same under each map."""
    geometry = asked.model.geometry
    shown = np.linspace(0, geometry.tubelets - 1, min(COLUMNS, geometry.tubelets)).round().astype(int)
    firsts = (shown * geometry.tubelet).tolist()
    frames = [face.frames[first] for first in firsts]
    about = [(f"face {face.track.number}", INK), (f"{face.begin:.2f} to {face.end:.2f} s", DIM)]
    lines = [_line(about, frames)]
    for words, maps_BTHW in _maps(asked, face, attention):
        heat_FSS = over_frames(maps_BTHW, geometry)[0, firsts].cpu().numpy()
        lines.append(_line(words, [heat_frame(frame, heat) for frame, heat in zip(frames, heat_FSS, strict=True)]))
    return np.concatenate(lines)


def _maps(asked: Explained, face: FaceWindow, attention: Kind) -> Iterator[tuple[Words, torch.Tensor]]:
    """What is drawn over a face: words for it, and the map (1, T, H, W)."""
    model = asked.model
    clips_BCFSS = to_clips(torch.from_numpy(face.frames[None]).to(next(model.parameters()).device))
    yield [(_ATTENTION[attention], INK)], attention_maps(model, clips_BCFSS, attention)
    with torch.inference_mode():
        features_BD = model.encode(clips_BCFSS, pool=True)
    for output in asked.outputs:
        words = [(short(output.name, 60), INK), (f"score {float(output.score(features_BD)):+.2f}", DIM)]
        yield words, grad_cam(model, clips_BCFSS, output.weight)


def _line(words: Words, pictures: Sequence[Image]) -> Image:
    """Words above a row of pictures."""
    shown = row([scaled(picture, SIDE) for picture in pictures])
    width = max(_LEAST_WIDTH, shown.shape[1])
    return np.concatenate([text_line(words, width), padded(shown, right=width - shown.shape[1])])
