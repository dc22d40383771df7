"""Look at a finished dataset: check it, count it, draw it (`marlin dataset verify | stats | show`)."""

import io
import json
import tempfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pipeline.config.schema import Config
from pipeline.dataset import REMAKE, Dataset, Sample, load_dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import dataset_store
from pipeline.storage import Store
from pipeline.storage.atomic import os_error, whole_file
from pipeline.storage.manifest import sha256_file
from preprocess.arrays import Image
from preprocess.regions import REGIONS, overlay, patch_grid

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_DRAWN_FRAMES = 8


def verify(cfg: Config) -> str:
    """Check every shard against its manifest and every sample against the schema; a line that sums it up.

    Raises:
        MarlinError: naming the first shard or sample that is wrong, and how many are.
    """
    store = dataset_store(cfg)
    dataset = load_dataset(store)
    by_shard: dict[str, list[Sample]] = {name: [] for name in dataset.shards}
    for sample in dataset.samples:
        by_shard[sample.shard].append(sample)
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="marlin-") as folder:
        for name, samples in tqdm(by_shard.items(), desc="verify", unit="shard", disable=None):
            problems += _shard_problems(store, dataset, name, samples, Path(folder) / "shard.tar")
    if problems:
        raise MarlinError(f"{dataset.url}: {len(problems)} problems, the first: {problems[0]}; to mend, {REMAKE}")
    frames = sum(sample.frames for sample in dataset.samples)
    return f"{dataset.url}: {len(by_shard)} shards, {len(dataset.samples)} samples, {frames} frames, all as committed"


def stats(cfg: Config) -> str:
    """Counts of a dataset, a line each."""
    dataset = load_dataset(dataset_store(cfg))
    info = dataset.info
    tracks = {(sample.source, sample.track) for sample in dataset.samples}
    sources = [source for unit in dataset.units for source in unit["sources"]]
    dropped: Counter[str] = Counter()
    for source in sources:
        dropped.update(source["dropped"])
    rows = {
        "dataset": f"{info['name']} ({dataset.identity[:12]})",
        "regions by": info["parser"],
        "sources": len({source["source"] for source in sources}),
        "hours of video": f"{sum(source['seconds'] for source in sources) / 3600:.3f}",
        "face tracks": len(tracks),
        "samples": len(dataset.samples),
        "face frames": sum(sample.frames for sample in dataset.samples),
        "splits": _counts(Counter(sample.split for sample in dataset.samples)),
        "bytes": sum(shard.size for shard in dataset.shards.values()),
        "dropped runs": _counts(dropped) or "none",
        "quarantined": _counts(info["quarantine"]) or "none",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def show(cfg: Config, out: Path, count: int) -> Path:
    """Draw frames of ``count`` samples, spread over the dataset, above the same frames with their regions (a PNG)."""
    store = dataset_store(cfg)
    dataset = load_dataset(store)
    if count < 1:
        raise UsageError(f"--count {count}: draw at least one sample")
    chosen = np.unique(np.linspace(0, len(dataset.samples) - 1, count, dtype=int))
    sheet = np.concatenate([_strip(store, dataset.samples[index]) for index in chosen])
    encoded = cv2.imencode(".png", sheet[..., ::-1])[1].tobytes()
    try:
        with whole_file(out) as file:
            file.write(encoded)
    except OSError as error:
        raise os_error(out, error) from None
    return out


def _shard_problems(store: Store, dataset: Dataset, name: str, samples: list[Sample], copy: Path) -> list[str]:
    entry = dataset.shards[name]
    try:
        store.fetch(name, copy)
    except MarlinError as error:
        return [str(error)]
    if copy.stat().st_size != entry.size or sha256_file(copy) != entry.sha256:
        return [f"{name} differs from what was committed (sha256)"]
    content = copy.read_bytes()
    return [
        f"{sample.key} in {name}: {what}" for sample in samples for what in _sample_problems(dataset, sample, content)
    ]


def _sample_problems(dataset: Dataset, sample: Sample, shard: bytes) -> list[str]:
    parts = {name: shard[offset : offset + length] for name, (offset, length) in sample.parts.items()}
    problems = []
    for frame in range(sample.frames):
        jpeg = parts.get(f"{frame:03d}.jpg", b"")
        if not (jpeg.startswith(_JPEG_START) and jpeg.endswith(_JPEG_END)):
            problems.append(f"frame {frame} is no whole JPEG")
    side = dataset.info["size"] // dataset.info["patch"]
    grid = _load_grid(parts.get("regions.npy", b""))
    if grid is None or grid.shape != (sample.frames, side, side) or grid.dtype != np.uint8:
        problems.append(f"regions.npy is not uint8 ({sample.frames}, {side}, {side})")
    elif "labels.png" in parts and not _agree(parts["labels.png"], grid, dataset.info["size"], dataset.info["patch"]):
        problems.append("labels.png and regions.npy disagree")
    try:
        described = json.loads(parts.get("json", b""))
    except ValueError:
        described = {}
    if described.get("source") != sample.source:
        problems.append("json does not name the source of the index")
    return problems


def _load_grid(data: bytes) -> Image | None:
    try:
        grid: Image = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    return grid


def _agree(png: bytes, grid: Image, size: int, patch: int) -> bool:
    """Whether the tags are those of the label maps; frames that could not be parsed have tags of 0."""
    labels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.shape != (len(grid) * size, size) or labels.max() >= len(REGIONS):
        return False
    parsed = grid.any(axis=(1, 2))
    expected = patch_grid(labels.astype(np.uint8).reshape(-1, size, size), patch)
    return bool((expected[parsed] == grid[parsed]).all())


def _strip(store: Store, sample: Sample) -> Image:
    """Frames of one sample in a row, with their regions in a row below where label maps are stored."""
    picked = np.linspace(0, sample.frames - 1, _DRAWN_FRAMES, dtype=int)
    frames = [_decode(store, sample, f"{frame:03d}.jpg", cv2.IMREAD_COLOR)[..., ::-1] for frame in picked]
    rows = [np.concatenate(frames, axis=1)]
    if "labels.png" in sample.parts:
        size = frames[0].shape[0]
        labels = _decode(store, sample, "labels.png", cv2.IMREAD_UNCHANGED).reshape(-1, size, size)
        rows.append(np.concatenate([overlay(f, labels[i]) for f, i in zip(frames, picked, strict=True)], axis=1))
    strip: Image = np.concatenate(rows)
    return strip


def _decode(store: Store, sample: Sample, part: str, flags: int) -> Image:
    image = cv2.imdecode(np.frombuffer(store.read_range(sample.shard, *sample.parts[part]), np.uint8), flags)
    if image is None:
        raise MarlinError(f"{part} of sample {sample.key} can't be decoded: run `marlin dataset verify`")
    return image.astype(np.uint8, copy=False)


def _counts(counts: "Counter[str] | dict[str, int]") -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
