"""Whether the parts of one sample are what the format says; pure functions of their bytes."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np

from pipeline.dataset import Sample
from preprocess.arrays import Image
from preprocess.inspect.records import SampleRecord, label_problems, record_problems
from preprocess.regions import REGIONS, patch_grid

SOUND_RATE = 16000
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_GREY_8 = b"\x89PNG\r\n\x1a\n", b"\x08\x00"
_FLAC_START, _FLAC_HEAD = b"fLaC", 42
# Sound ends with the last frame, whose length can only be guessed where the frame rate varies.
_SOUND_SLACK = 0.5


@dataclass(frozen=True)
class Form:
    """What all samples of a dataset share.

    Attributes:
        size: side of a frame in pixels.
        patch: side of a patch.
        labels: schema of the corpus labels.
        label_maps: whether samples have `labels.png`.
        deep: decode pictures and sound too.
    """

    size: int
    patch: int
    labels: Mapping[str, Any]
    label_maps: bool
    deep: bool


def sample_problems(sample: Sample, parts: Mapping[str, bytes], form: Form) -> list[str]:
    """What is wrong with a sample, a line each.

    Args:
        sample: its entry in the index.
        parts: the bytes of each part that the index names.
        form: of its dataset.
    """
    jpegs = [f"{frame:03d}.jpg" for frame in range(sample.frames)]
    wanted = {*jpegs, "regions.npy", "json"} | ({"labels.png"} if form.label_maps else set())
    problems = [f"{name} is missing" for name in sorted(wanted - parts.keys())]
    problems += [f"{name} is no part of a sample" for name in sorted(parts.keys() - wanted - {"flac", "txt"})]
    problems += [line for name in jpegs if name in parts for line in _jpeg_problems(name, parts[name], form)]
    checks: dict[str, Callable[[], list[str]]] = {
        "json": lambda: _record_problems(sample, parts["json"], form),
        "regions.npy": lambda: _region_problems(sample, parts, form),
        "labels.png": lambda: _map_problems(sample, parts["labels.png"], form),
        "flac": lambda: _sound_problems(sample, parts, form),
        "txt": lambda: _text_problems(parts["txt"]),
    }
    return problems + [line for name, check in checks.items() if name in parts for line in check()]


def load_grid(data: bytes) -> Image:
    """The region tags out of `regions.npy`.

    Raises:
        ValueError: it is no NumPy array.
    """
    try:
        grid: Image = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"regions.npy is no NumPy array ({error})") from None
    return grid


def _jpeg_problems(name: str, data: bytes, form: Form) -> list[str]:
    if not (data.startswith(_JPEG_START) and data.endswith(_JPEG_END)):
        return [f"{name} is no whole JPEG"]
    if not form.deep:
        return []
    # OpenCV would fill up a picture that breaks off; FFmpeg can be told to refuse it.
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options, decoder.thread_count = {"err_detect": "explode"}, 1
    try:
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except av.FFmpegError as error:
        return [f"{name} can't be decoded ({error.strerror})"]
    shapes = [(frame.width, frame.height) for frame in frames]
    return [] if shapes == [(form.size, form.size)] else [f"{name} is not {form.size}x{form.size}"]


def _record_problems(sample: Sample, data: bytes, form: Form) -> list[str]:
    problems = record_problems(SampleRecord, data)
    if problems:
        return [f"json: {line}" for line in problems]
    record = json.loads(data)
    problems = [
        f"json: {name} is not that of the index"
        for name in ("key", "source", "identity", "track", "start", "frames", "split")
        if record[name] != getattr(sample, name)
    ]
    problems += [
        f"json: {name} has not {sample.frames} entries"
        for name in ("boxes", "times")
        if len(record[name]) != sample.frames
    ]
    if any(before >= after for before, after in zip(record["times"], record["times"][1:], strict=False)):
        problems.append("json: times do not rise")
    if any(frame >= sample.frames for frame in record["unparsed"]):
        problems.append("json: unparsed names frames that are not there")
    if record["size"] != form.size:
        problems.append(f"json: size is not {form.size}")
    return problems + [f"json: {line}" for line in label_problems(form.labels, record["labels"])]


def _region_problems(sample: Sample, parts: Mapping[str, bytes], form: Form) -> list[str]:
    side = form.size // form.patch
    shape = (sample.frames, side, side)
    try:
        grid = load_grid(parts["regions.npy"])
    except ValueError:
        return ["regions.npy is no NumPy array"]
    if grid.shape != shape or grid.dtype != np.uint8:
        return [f"regions.npy is not uint8 {shape}"]
    if grid.max(initial=0) >> len(REGIONS):
        return [f"regions.npy has bits beyond the {len(REGIONS)} regions"]
    if form.deep and "labels.png" in parts and not _agree(parts["labels.png"], grid, form):
        return ["labels.png and regions.npy disagree"]
    return []


def _map_problems(sample: Sample, data: bytes, form: Form) -> list[str]:
    size = form.size.to_bytes(4, "big") + (sample.frames * form.size).to_bytes(4, "big")
    if data.startswith(_PNG_START) and data[16:26] == size + _PNG_GREY_8:
        return []
    return [f"labels.png is no 8-bit grey PNG of {form.size}x{sample.frames * form.size}"]


def _agree(png: bytes, grid: Image, form: Form) -> bool:
    """Whether the tags are those of the label maps; frames that could not be parsed have tags of 0."""
    labels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.shape != (len(grid) * form.size, form.size) or labels.max() >= len(REGIONS):
        return False
    parsed = grid.any(axis=(1, 2))
    expected = patch_grid(labels.astype(np.uint8).reshape(-1, form.size, form.size), form.patch)
    return bool((expected[parsed] == grid[parsed]).all())


def _sound_problems(sample: Sample, parts: Mapping[str, bytes], form: Form) -> list[str]:
    data = parts["flac"]
    if len(data) < _FLAC_HEAD or not data.startswith(_FLAC_START):
        return ["flac is no FLAC stream"]
    # STREAMINFO: 20 bits of rate, 3 of channels - 1, 5 of bits - 1, 36 of samples.
    fields = int.from_bytes(data[18:26], "big")
    rate, channels, length = fields >> 44, (fields >> 41 & 7) + 1, fields & (1 << 36) - 1
    if (rate, channels) != (SOUND_RATE, 1):
        return [f"flac is not mono at {SOUND_RATE} Hz"]
    try:
        times, fps = (json.loads(parts["json"])[name] for name in ("times", "fps"))
        seconds = times[-1] - times[0] + 1 / fps
    except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError):
        return []  # said of json already
    if abs(length / SOUND_RATE - seconds) > _SOUND_SLACK:
        return [f"flac lasts {length / SOUND_RATE:.2f} s, its frames {seconds:.2f} s"]
    if form.deep and _decoded_length(data) != length:
        return ["flac can't be decoded to its end"]
    return []


def _decoded_length(data: bytes) -> int | None:
    try:
        with av.open(io.BytesIO(data), "r", options={"err_detect": "explode"}) as sound:
            return sum(frame.samples for frame in sound.decode(audio=0))
    except (av.FFmpegError, IndexError):
        return None


def _text_problems(data: bytes) -> list[str]:
    try:
        return [] if data.decode().strip() else ["txt is empty"]
    except UnicodeDecodeError:
        return ["txt is not UTF-8"]
