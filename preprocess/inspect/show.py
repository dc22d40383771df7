"""`marlin dataset show`: samples with their regions, as one picture."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.dataset import Dataset, Sample, load_dataset, read_exclusions
from pipeline.errors import MarlinError, UsageError
from pipeline.storage import Store
from pipeline.text import nearest, printable, short
from preprocess.arrays import Image
from preprocess.dataset.plan import read_plan
from preprocess.inspect.samples import load_grid
from preprocess.regions import BACKGROUND, HAIR, LEFT_EYE, MOUTH, NOSE, RIGHT_EYE, SKIN, overlay
from preprocess.sheet import INK, legend, scaled, text_line, write_png

_FRAMES, _SIDE = 8, 160
_WIDTH = _FRAMES * _SIDE
_MOST = 256  # samples: their sheet takes a third of a gigabyte while it is drawn
# Of several regions that touch a patch, the first of these gives it its colour.
_FIRST = (LEFT_EYE, RIGHT_EYE, MOUTH, NOSE, HAIR, SKIN, BACKGROUND)


def show(store: Store, out: Path, count: int, keys: Sequence[str] = (), sources: Sequence[str] = ()) -> int:
    """Draws samples as a PNG: eight frames of each above the same frames with their regions; returns how many.

    Args:
        store: the dataset.
        out: file to write.
        count: samples at most, spread evenly over those that are chosen; all samples of `keys` are drawn.
        keys, sources: which samples; all where both are empty.

    Raises:
        UsageError: no PNG is asked for, more than fits on a sheet, or there is no such key or source.
        MarlinError: nothing to draw, as of a source that is quarantined, with the reason.
    """
    dataset = load_dataset(store)
    samples = choose(store, dataset, dataset.samples, count=count, keys=keys, sources=sources)
    head = text_line(legend(), _WIDTH)
    write_png(np.concatenate([head, *(_strip(store, sample) for sample in samples)]), out)
    return len(samples)


def choose(
    store: Store,
    dataset: Dataset,
    samples: Sequence[Sample],
    *,
    count: int,
    keys: Sequence[str],
    sources: Sequence[str],
) -> list[Sample]:
    """The samples to draw: all of `keys`, or `count` at most, spread evenly over those of `sources` or over all.

    Args:
        store, dataset: what they belong to.
        samples: those that can be drawn.
        count, keys, sources: as they were asked for.

    Raises:
        UsageError: more than fits on a sheet, or no such key or source.
        MarlinError: nothing to draw, as of a source that is quarantined, with the reason.
    """
    if not 1 <= count <= _MOST:
        raise UsageError(f"--count {count}: draw 1 to {_MOST} samples")
    if len(keys) > _MOST:
        raise UsageError(f"--key: {len(keys)} of them are more than fit on a sheet, {_MOST}")
    known_keys = {sample.key for sample in dataset.samples}
    known_sources = {sample.source for sample in dataset.samples}
    for key in keys:
        if key not in known_keys:
            raise _no_key(store, dataset, key)
    for source in sources:
        if source not in known_sources:
            raise _no_source(store, dataset, source)
    chosen = [s for s in samples if s.key in keys or s.source in sources] if keys or sources else list(samples)
    if not chosen:
        raise MarlinError(f"{dataset.url} holds no such sample that can be drawn")
    if keys:
        return chosen
    return [chosen[place] for place in np.unique(np.linspace(0, len(chosen) - 1, count).round().astype(int))]


def _no_key(store: Store, dataset: Dataset, key: str) -> MarlinError:
    """Why no sample has this key."""
    for entry in read_exclusions(store, dataset.info):
        if entry["key"] == key:
            return MarlinError(f"sample {key} is left out as a near-duplicate of {entry['kept']}: draw that one")
    return UsageError(f"the dataset holds no sample {key!r}{nearest(key, {s.key for s in dataset.samples})}")


def _no_source(store: Store, dataset: Dataset, source: str) -> MarlinError:
    """Why no sample is of this source."""
    for unit in dataset.units:
        for entry in unit["quarantined"]:
            if entry["source"] == source:
                why = printable(f"{entry['reason']} ({entry['detail']})")
                return MarlinError(f"source {source!r} is quarantined and has no samples: {why}")
    for entry in dataset.info["removed"]:
        if entry["source"] == source:
            return MarlinError(f"source {source!r} was taken out of the dataset: {printable(entry['reason'])}")
    if source in dataset.sources:
        return MarlinError(
            f"all samples of source {source!r} are left out as near-duplicates of other sources' samples"
        )
    if source in read_plan(store).plan.sources():
        return MarlinError(f"source {source!r} is planned and not in the dataset yet: run `marlin preprocess`")
    return UsageError(f"the dataset holds no source {source!r}{nearest(source, dataset.sources.keys())}")


def label_maps(store: Store, sample: Sample, size: int) -> Image:
    """(frames, size, size) regions: the stored maps, or where there are none the most telling region of each patch."""
    if "labels.png" in sample.parts:
        return _decode(store, sample, "labels.png", cv2.IMREAD_UNCHANGED).reshape(-1, size, size)
    grid = load_grid(store.read_range(sample.shard, *sample.parts["regions.npy"]))
    regions = np.full(grid.shape, BACKGROUND, np.uint8)
    for region in reversed(_FIRST):
        regions[(grid >> region & 1).astype(bool)] = region
    scale = size // grid.shape[1]
    maps: Image = regions.repeat(scale, axis=1).repeat(scale, axis=2)
    return maps


def _strip(store: Store, sample: Sample) -> Image:
    """Caption, frames of one sample in a row, and the same with their regions below."""
    picked = np.linspace(0, sample.frames - 1, _FRAMES).round().astype(int)
    frames = [_decode(store, sample, f"{frame:03d}.jpg", cv2.IMREAD_COLOR)[..., ::-1] for frame in picked]
    labels = label_maps(store, sample, frames[0].shape[0])
    tinted = [overlay(frame, labels[place]) for frame, place in zip(frames, picked, strict=True)]
    rows = [np.concatenate([scaled(picture, _SIDE) for picture in row], axis=1) for row in (frames, tinted)]
    caption = f"{sample.key}  {sample.split}  {sample.frames} frames  {short(sample.source, 60)}"
    strip: Image = np.concatenate([text_line([(caption, INK)], _WIDTH), *rows])
    return strip


def _decode(store: Store, sample: Sample, part: str, flags: int) -> Image:
    image = cv2.imdecode(np.frombuffer(store.read_range(sample.shard, *sample.parts[part]), np.uint8), flags)
    if image is None:
        raise MarlinError(f"{part} of sample {sample.key} can't be decoded: run `marlin dataset verify`")
    return image.astype(np.uint8, copy=False)
