"""`marlin features`: features of the faces of videos as files."""

import logging
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from eval.features import Embedder, WindowSpec, model_embedder
from eval.pieces import FaceWindows, Fault, read_pieces
from eval.videos import TrackFeatures, face_networks, track_features
from pipeline.checkpoints import CONFIG_FILE, MODEL_FILES, fetch_checkpoint, find_checkpoint
from pipeline.config.load import load_config, override
from pipeline.config.schema import Config, PreprocessConfig
from pipeline.errors import MarlinError, UsageError
from pipeline.storage.atomic import os_error, whole_file
from pipeline.text import plural
from preprocess.faces.tracker import Detect, Fit
from preprocess.follow import FaceTrack
from train.export import load_model
from train.model import MaskedAutoencoder

SUFFIXES = (".npy", ".npz", ".parquet")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_log = logging.getLogger(__name__)


Found = dict[str, list[TrackFeatures]]
"""Features of the faces of each video, by the path as it was given."""


def extract_videos(
    videos: Sequence[str],
    checkpoint: str,
    out: Path,
    overrides: Sequence[str] = (),
    *,
    cropped: bool = False,
    progress: bool = True,
) -> Found:
    """Write the features of the faces of some videos; see docs/features.md for the layouts.

    Args:
        videos: paths.
        checkpoint: URL of a run or of one of its checkpoints, or a folder of `marlin export --format safetensors`.
        out: file to write, whole or not at all; its suffix chooses the layout.
        overrides: `eval.features.key=value` on top of the configuration that the checkpoint was trained with.
        cropped: the videos show nothing but a face.
        progress: show a bar.

    Returns:
        What was written.

    Raises:
        UsageError: the file can't hold what is asked for, or an override is wrong.
        MarlinError: a video can't be used; what the others gave is written.
    """
    _check_names(videos, out)
    model, cfg = _load(checkpoint, overrides, out)
    settings, preprocess = cfg.eval.features, cfg.preprocess
    rate, official = settings.rate or cfg.data.stride, settings.windows == "official"
    spec = WindowSpec(cfg.data.frames, rate, settings.stride * rate, settings.batch, official)
    if official:
        preprocess = preprocess.model_copy(update={"fps": None})
    networks = None if cropped else face_networks(preprocess)
    embed = model_embedder(model, _DTYPES[settings.precision], keep_seq=settings.keep_seq)
    found = features_of(videos, networks, preprocess, embed, spec, progress=progress)
    if found:
        _write(out, found, settings.reduction)
    bad_count = len(videos) - len(found)
    if bad_count:
        rest = f"; the others are in {out}" if found else ""
        raise MarlinError(f"{plural(bad_count, 'video')} of {len(videos)} gave no features (see above){rest}")
    return found


def features_of(
    videos: Sequence[str],
    networks: tuple[Detect, Fit] | None,
    cfg: PreprocessConfig,
    embed: Embedder,
    spec: WindowSpec,
    *,
    progress: bool = True,
) -> Found:
    """Features of the videos that can be used; of the others a warning tells why not.

    Args:
        videos: paths.
        networks: find the faces; None takes the whole picture for one.
        cfg: how faces are found and cut out.
        embed: the encoder.
        spec: the windows.
        progress: show a bar.
    """
    tracks: dict[str, Sequence[FaceTrack]] = {}
    rows: dict[tuple[str, int], list[NDArray[np.float32]]] = defaultdict(list)
    bad = set()
    with (
        closing(read_pieces(FaceWindows(videos, networks, cfg, spec))) as pieces,
        tqdm(desc="features", unit="window", disable=not progress) as bar,
    ):
        for piece in pieces:
            if isinstance(piece, Fault):
                _log.warning("%s: %s", piece.video, piece.reason)
                bad.add(piece.video)
                continue
            tracks[piece.video] = piece.tracks
            for number, feature in zip(piece.owners, embed(piece.frames_BTHWC.numpy()), strict=True):
                rows[piece.video, number].append(feature)
            bar.update(len(piece.owners))
    return {
        video: [track_features(track, rows[video, track.number], spec) for track in tracks[video]]
        for video in videos
        if video not in bad
    }


def _check_names(videos: Sequence[str], out: Path) -> None:
    if out.suffix not in SUFFIXES:
        raise UsageError(f"{out}: the name must end with one of {', '.join(SUFFIXES)}")
    if out.suffix == ".npy" and len(videos) > 1:
        raise UsageError(f"a .npy file holds the features of one video, and {len(videos)} are given: write .npz")
    again = sorted({video for video in videos if videos.count(video) > 1})
    if again:
        raise UsageError(f"{again[0]} is given more than once")
    names = [Path(video).name for video in videos]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and out.suffix == ".npz":
        raise UsageError(f"two videos are named {twice[0]}, as the arrays of a .npz file would be: write .parquet")


def _load(checkpoint: str, overrides: Sequence[str], out: Path) -> tuple[MaskedAutoencoder, Config]:
    """The model, and its configuration with the overrides, which are checked before gigabytes are fetched."""
    fetch = _fetcher(checkpoint)
    with tempfile.TemporaryDirectory(prefix="marlin-features-") as scratch:
        folder = fetch(Path(scratch), [CONFIG_FILE])
        cfg = override(load_config(str(folder / CONFIG_FILE)), overrides)
        if out.suffix == ".parquet" and cfg.eval.features.keep_seq:
            raise UsageError("keep_seq gives a matrix for each window, which a table can't hold: write .npz")
        model, _ = load_model(fetch(Path(scratch), MODEL_FILES))
        return model, cfg


def _fetcher(checkpoint: str) -> Callable[[Path, Sequence[str]], Path]:
    """Copies files of a model into a folder, or, of an exported one, says where they are."""
    folder = Path(checkpoint)
    if (folder / "model.safetensors").is_file():
        return lambda scratch, names: folder
    run, published = find_checkpoint(checkpoint)
    return lambda scratch, names: fetch_checkpoint(run, published, scratch, names)


def _reduced(features: NDArray[np.float32], reduction: str) -> NDArray[np.float32]:
    if reduction == "none":
        return features
    out: NDArray[np.float32] = features.mean(axis=0) if reduction == "mean" else features.max(axis=0)
    return out


def _write(out: Path, found: Found, reduction: str) -> None:
    arrays: dict[str, Any] = {}
    for video, faces in found.items():
        for face in faces:
            name = f"{Path(video).name}/{face.track.number}"
            arrays[name] = _reduced(face.features_WD, reduction)
            arrays[f"{name}/seconds"] = face.seconds
    try:
        with whole_file(out) as file:
            if out.suffix == ".npz":
                np.savez(file, **arrays)
            elif out.suffix == ".parquet":
                _write_table(file, found, reduction)
            else:
                [faces] = found.values()
                if len(faces) > 1:
                    raise UsageError(f"{next(iter(found))} shows {len(faces)} faces, a .npy file holds one: write .npz")
                np.save(file, _reduced(faces[0].features_WD, reduction))
    except OSError as error:
        raise os_error(out, error) from None


def _write_table(file: Any, found: Found, reduction: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = []
    for video, faces in found.items():
        for face in faces:
            features = _reduced(face.features_WD, reduction).reshape(-1, face.features_WD.shape[-1])
            for seconds, feature in zip(face.seconds, features, strict=False):  # a reduction is one row
                rows.append((video, face.track.number, float(seconds), feature))
    columns = list(zip(*rows, strict=True))
    names = ["video", "track", "start_s", "feature"]
    types = [pa.string(), pa.int32(), pa.float64(), pa.list_(pa.float32())]
    arrays = [pa.array(list(column), kind) for column, kind in zip(columns, types, strict=True)]
    parquet.write_table(pa.table(arrays, names=names), file)
