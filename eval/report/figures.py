"""Picture sections of the report that need no checkpoint: samples with their regions, masks by strategy."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from eval.pictures import Image, data_uri, grid_labels, mask_columns, overlay_columns
from eval.sequences import read_frames, read_part
from eval.tasks.reconstruction import clips_for
from pipeline.config.schema import Config
from pipeline.dataset import Dataset, Sample
from pipeline.storage import Store
from train.data.batch import Batch
from train.export import geometry_of
from train.masking import make_mask, pool_regions, visible_count

SAMPLE_TRACKS, SAMPLE_FRAMES = 12, 6
WIDTH = 160
"""Of a picture in pixels."""

STRATEGIES = {
    "fasking": "The paper's: background and skin become visible first, so eyes, nose, mouth and hair are hidden first.",
    "tube": "The same randomly chosen patches are visible in every frame.",
    "frame": "Whole frames are visible, as far as the number of visible cubes goes, and all others hidden.",
    "random": "Patches are chosen anywhere in space and time.",
}


@dataclass(frozen=True)
class Picture:
    """One image of a figure."""

    src: str
    alt: str


@dataclass(frozen=True)
class Figure:
    """Columns side by side, with a title and a caption."""

    title: str
    caption: str
    pictures: tuple[Picture, ...]


def sample_figures(dataset: Dataset, store: Store) -> list[Figure]:
    """Frames of the first sample of each track above the same frames with their regions, at most 12 tracks."""
    return [_sample_figure(dataset, store, sample) for sample in first_of_tracks(dataset.samples)[:SAMPLE_TRACKS]]


def mask_figures(cfg: Config, dataset: Dataset, store: Store) -> list[Figure]:
    """One clip under each masking strategy, at the run's masking ratio."""
    batch = track_clips(cfg, dataset, store, 1)
    geometry = geometry_of(cfg)
    side = geometry.size // geometry.patch
    regions_BTN = pool_regions(batch.regions_BTHW, side).flatten(2)
    mask = cfg.data.mask
    seen = visible_count(geometry.tubelets, geometry.patches, mask.ratio, mask.rounding)
    frames = tubelet_frames(batch.clips_BCTHW[0])
    figures = []
    for name, meaning in STRATEGIES.items():
        mask_BN = make_mask(name, regions_BTN, batch.hash_B, ratio=mask.ratio, rounding=mask.rounding)
        columns = mask_columns(frames, mask_grids(mask_BN[0], side), WIDTH)
        caption = f"{meaning} {seen} of {geometry.tokens} cubes are visible."
        figures.append(figure(strategy_title(name, cfg), caption, columns, name))
    return figures


def strategy_title(name: str, cfg: Config) -> str:
    """What the page calls a masking strategy of a run."""
    return name.capitalize() + (" (used in this run)" if name == cfg.data.mask.strategy else "")


def first_of_tracks(samples: Sequence[Sample]) -> list[Sample]:
    """The first sample of each track, in dataset order."""
    first: dict[tuple[str, int], Sample] = {}
    for sample in samples:
        first.setdefault((sample.source, sample.track), sample)
    return list(first.values())


def track_clips(cfg: Config, dataset: Dataset, store: Store, limit: int) -> Batch:
    """Clips of different tracks as one batch; held-out ones, or training ones where nothing is held out."""
    split = "val" if dataset.of_split("val") else "train"
    chosen = first_of_tracks(dataset.of_split(split))[:limit]
    one = cfg.model_copy(update={"eval": cfg.eval.model_copy(update={"batch": limit})})
    shown = replace(dataset, samples=tuple(chosen))
    [batch] = clips_for(one, shown, store, split=split, limit=len(chosen))
    return batch


def _sample_figure(dataset: Dataset, store: Store, sample: Sample) -> Figure:
    chosen = np.linspace(0, sample.frames - 1, SAMPLE_FRAMES).round().astype(int)
    frames = read_frames(store, sample)[chosen]
    labels = _labels(store, sample, int(dataset.info["size"]))[chosen]
    title = name_of(sample)
    caption = f"{sample.frames} frames from frame {sample.start} of the video; identity “{sample.identity}”."
    return figure(title, caption, overlay_columns(list(frames), list(labels), WIDTH), title)


def _labels(store: Store, sample: Sample, size: int) -> Image:
    """Label maps (frames, S, S): as stored, or from the patch grid where the dataset keeps no maps."""
    if "labels.png" in sample.parts:
        stacked = cv2.imdecode(np.frombuffer(read_part(store, sample, "labels.png"), np.uint8), cv2.IMREAD_GRAYSCALE)
        return np.asarray(stacked, np.uint8).reshape(sample.frames, size, size)
    grids = np.load(io.BytesIO(read_part(store, sample, "regions.npy")), allow_pickle=False)
    return np.stack([grid_labels(grid, size) for grid in grids])


def name_of(sample: Sample) -> str:
    """What the page calls the track of a sample."""
    return f"{sample.source} · track {sample.track}"


def tubelet_frames(clip_CTHW: torch.Tensor) -> list[Image]:
    """The first frame of each tubelet as RGB bytes."""
    frames_THWC = clip_CTHW[:, ::2].permute(1, 2, 3, 0).clamp(0, 1).mul(255).round().byte().cpu().numpy()
    return list(frames_THWC)


def mask_grids(mask_N: torch.Tensor, side: int) -> NDArray[np.bool_]:
    """The mask of a clip as (T, side, side)."""
    out: NDArray[np.bool_] = mask_N.reshape(-1, side, side).cpu().numpy()
    return out


def figure(title: str, caption: str, columns: Sequence[Image], alt: str) -> Figure:
    """A figure of some columns of pictures."""
    pictures = (Picture(data_uri(image), f"{alt}, picture {index + 1}") for index, image in enumerate(columns))
    return Figure(title, caption, tuple(pictures))
