"""A small dataset of drawn faces, written by hand in the documented format: no detector, no videos, exact regions."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.dataset import SCHEMA
from pipeline.storage import Store
from pipeline.storage.manifest import to_json
from preprocess.regions import REGIONS, patch_grid

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class DrawnTrack:
    """One face track: its samples are consecutive, the last ones held out.

    Attributes:
        source: name of the video.
        train, val, test: frames of the samples of each split.
        track: its number in the video.
        labels: what the corpus says of the video.
        mark: grey that the picture fades into, so that a label can be seen; None leaves it as it is.
    """

    source: str
    train: Sequence[int] = (32, 32, 32)
    val: Sequence[int] = (32,)
    track: int = 0
    test: Sequence[int] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)
    mark: int | None = None


def draw_face(identity: int, frame: int, size: int) -> tuple[Image, Image]:
    """A moving face and its exact label map: (S, S, 3) RGB and (S, S) region indices, colours fixed by identity."""
    dice = np.random.default_rng(identity)
    back, skin, hair = (tuple(int(v) for v in dice.integers(30, 226, 3)) for _ in range(3))
    image, labels = np.full((size, size, 3), back, np.uint8), np.zeros((size, size), np.uint8)
    image[::4] = np.clip(image[::4].astype(int) - 15, 0, 255)
    x, y = 0.5 + 0.04 * np.sin(0.3 * frame + identity), 0.54 + 0.02 * np.cos(0.2 * frame)
    opened = 0.03 + 0.03 * abs(np.sin(0.5 * frame))
    shapes = (
        ("hair", hair, (x, y - 0.08), (0.34, 0.40)),
        ("skin", skin, (x, y + 0.04), (0.27, 0.34)),
        ("left-eye", (250, 250, 250), (x + 0.11, y - 0.06), (0.06, 0.035)),
        ("right-eye", (250, 250, 250), (x - 0.11, y - 0.06), (0.06, 0.035)),
        ("nose", tuple(int(0.8 * v) for v in skin), (x, y + 0.06), (0.04, 0.07)),
        ("mouth", (190, 40, 50), (x, y + 0.2), (0.11, opened)),
    )
    for region, colour, centre, axes in shapes:
        place = tuple(round(v * size) for v in centre), tuple(max(1, round(v * size)) for v in axes)
        cv2.ellipse(image, *place, 0, 0, 360, colour, -1)
        cv2.ellipse(labels, *place, 0, 0, 360, REGIONS.index(region), -1)
    return image, labels


@dataclass(frozen=True)
class _Style:
    size: int
    patch: int
    label_maps: bool


def write_dataset(
    store: Store,
    tracks: Sequence[DrawnTrack],
    *,
    size: int = 32,
    patch: int = 8,
    label_maps: bool = True,
    labels: Mapping[str, Any] | None = None,
) -> str:
    """Write a finished dataset, one unit a track, with a schema of labels; returns its identity."""
    units, entries = [], []
    style = _Style(size, patch, label_maps)
    for number, track in enumerate(tracks):
        unit = _write_unit(store, number, track, style)
        units.append(unit)
        data = to_json(unit)
        name = f"units/{unit['unit']}.json"
        store.write(name, data)
        entries.append({"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    samples = [sample for unit in units for sample in unit["samples"]]
    info = {
        "schema": SCHEMA,
        "name": "drawn",
        "size": size,
        "patch": patch,
        "frames": 64,
        "regions": list(REGIONS),
        "config": {},
        "models": [],
        "parser": "drawn",
        "versions": {},
        "labels": dict(labels or {}),
        "findings": [],
        "counts": {
            "sources": len({track.source for track in tracks}),
            "quarantined": 0,
            "units": len(units),
            "tracks": len(tracks),
            "samples": len(samples),
            "excluded": 0,
            "frames": sum(sample["frames"] for sample in samples),
        },
        "splits": {split: sum(s["split"] == split for s in samples) for split in ("train", "val", "test")},
        "quarantine": {},
        "dropped": {},
        "removed": [],
        "exclusions": None,
        "units": entries,
    }
    data = to_json(info)
    store.write("dataset.json", data)
    return hashlib.sha256(data).hexdigest()


def _write_unit(store: Store, identity: int, track: DrawnTrack, style: _Style) -> dict[str, Any]:
    unit = f"{identity:06d}"
    samples: list[dict[str, Any]] = []
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        start = 0
        for split, lengths in (("train", track.train), ("val", track.val), ("test", track.test)):
            for frames in lengths:
                samples.append(_sample(identity, track, (start, frames), split, style))
                _add_parts(tar, samples[-1]["key"], _parts(identity, start, frames, style, track.mark))
                start += frames
    _index(buffer, samples)
    shard = f"shards/{unit}-drawn-00.tar"
    store.write(shard, buffer.getvalue())
    entry = {"name": shard, "size": len(buffer.getvalue()), "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
    source = {
        "source": track.source,
        "span": None,
        "identity": f"drawn-{identity}",
        "labels": dict(track.labels),
        "sha256": "0" * 64,
        "seconds": start / 25,
        "fps": 25.0,
        "frames": start,
        "tracks": 1,
        "samples": len(samples),
        "unparsed": 0,
        "dropped": {},
    }
    manifest = {"schema": SCHEMA, "unit": unit, "shards": [entry], "samples": samples}
    return {**manifest, "sources": [source], "quarantined": []}


def _sample(identity: int, track: DrawnTrack, span: tuple[int, int], split: str, style: _Style) -> dict[str, Any]:
    start, frames = span
    return {
        "key": f"{identity:06d}-t{track.track:02d}-{start:06d}",
        "shard": 0,
        "frames": frames,
        "source": track.source,
        "identity": f"drawn-{identity}",
        "track": track.track,
        "start": start,
        "split": split,
        "size": style.size,
        "grid": style.size // style.patch,
        "parts": {},
    }


def _parts(identity: int, start: int, frames: int, style: _Style, mark: int | None) -> dict[str, bytes]:
    drawn = [draw_face(identity, start + index, style.size) for index in range(frames)]
    if mark is not None:
        drawn = [((image // 8 + mark * 7 // 8).astype(np.uint8), labels) for image, labels in drawn]
    parts = {f"{i:03d}.jpg": _encode(".jpg", image[..., ::-1]) for i, (image, _) in enumerate(drawn)}
    labels = np.stack([label for _, label in drawn])
    grid = io.BytesIO()
    np.save(grid, patch_grid(labels, style.patch))
    parts["regions.npy"] = grid.getvalue()
    if style.label_maps:
        parts["labels.png"] = _encode(".png", labels.reshape(-1, style.size))
    parts["json"] = json.dumps({"times": [(start + i) / 25 for i in range(frames)]}).encode()
    return parts


def _encode(kind: str, image: Image) -> bytes:
    return bytes(cv2.imencode(kind, np.ascontiguousarray(image))[1])


def _add_parts(tar: tarfile.TarFile, key: str, parts: Mapping[str, bytes]) -> None:
    for name, data in parts.items():
        entry = tarfile.TarInfo(f"{key}.{name}")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))


def _index(buffer: io.BytesIO, samples: Sequence[dict[str, Any]]) -> None:
    """Fill in where each part lies in the finished tar."""
    parts = {sample["key"]: sample["parts"] for sample in samples}
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as tar:
        for member in tar:
            key, _, part = member.name.partition(".")
            parts[key][part] = [member.offset_data, member.size]
