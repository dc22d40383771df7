"""`marlin dataset show --masks`: clips under each masking strategy, as figure 2(b) of the paper.

Shapes: B clips, T tubelet frames, H×W patches of a frame.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from eval.pictures import Image, mask_frame
from eval.sequences import read_frames
from pipeline.config.schema import Config, MaskConfig
from pipeline.dataset import Sample, load_dataset
from pipeline.errors import MarlinError
from pipeline.storage import Store
from pipeline.text import short
from preprocess.inspect.show import choose, label_maps
from preprocess.regions import overlay
from preprocess.sheet import DIM, GAP, INK, Words, legend, padded, row, scaled, text_line, write_png
from train.data.batch import mask_inputs
from train.data.plan import centre_clip, valid_starts
from train.data.regions import tubelet_regions
from train.data.shards import read_regions
from train.export import geometry_of
from train.masking import mask_clips, unparsed_frames, visible_count
from train.sizes import TUBELET

STRATEGIES: tuple[str, ...] = get_args(MaskConfig.model_fields["strategy"].annotation)
COLUMNS, SIDE, NAMES = 8, 160, 160
"""Most pictures in a row, about their side in pixels, the width of the names beside them."""

_GHOST = 0.15
_LEAST_WIDTH = 960  # for the text of clips that have few pictures


def show_masks(
    cfg: Config, store: Store, out: Path, count: int, *, keys: Sequence[str] = (), sources: Sequence[str] = ()
) -> int:
    """Draw the centre clips of samples as a PNG: frames, regions, then a row for each strategy; returns how many.

    Args:
        cfg: a run; its `data` section says what a clip is and how much of it is hidden.
        store: the dataset.
        out: file to write.
        count: clips at most, spread evenly over the samples that are chosen; all samples of `keys` are drawn.
        keys, sources: which samples; all where both are empty.

    Raises:
        UsageError: no such key or source, or masks that do not fit the dataset.
        MarlinError: no sample is long enough for a clip.
    """
    dataset = load_dataset(store)
    long = [sample for sample in dataset.samples if valid_starts(sample, cfg.data)]
    if not long:
        raise MarlinError(f"no sample of {store.url} is long enough for a clip: lower data.frames or data.stride")
    chosen = choose(store, dataset, long, count=count, keys=keys, sources=sources)
    sheets = [_sheet(cfg, store, sample) for sample in chosen]
    write_png(np.concatenate([text_line(legend(), sheets[0].shape[1]), *sheets]), out)
    return len(sheets)


def _sheet(cfg: Config, store: Store, sample: Sample) -> Image:
    """One clip: what it is, the numbers of its frames, and the rows."""
    clip, geometry = centre_clip(cfg, sample), geometry_of(cfg)
    firsts = clip.frames(cfg.data)[::TUBELET]
    shown = np.unique(np.linspace(0, len(firsts) - 1, COLUMNS).round().astype(int)).tolist()
    stored, labels = read_frames(store, sample), label_maps(store, sample, cfg.preprocess.size)
    side = geometry.side * max(1, round(SIDE / geometry.side))  # whole pixels a patch, so that its edges are sharp
    frames = [scaled(stored[firsts[t]], side) for t in shown]
    rows = {
        "frames": frames,
        "regions": [scaled(overlay(stored[firsts[t]], labels[firsts[t]]), side) for t in shown],
    }
    regions_BTHW, hash_B = mask_inputs([clip], [tubelet_regions(clip, read_regions(store, sample), cfg.data)])
    for strategy in STRATEGIES:
        mask = cfg.data.mask.model_copy(update={"strategy": strategy})
        visible_THW = mask_clips(mask, regions_BTHW, hash_B, geometry.side).view(-1, geometry.side, geometry.side)
        seen = visible_THW[shown].numpy()
        rows[strategy] = [mask_frame(frame, visible, _GHOST) for frame, visible in zip(frames, seen, strict=True)]
    numbers = [text_line([(f"frame {firsts[t]}", DIM)], side + GAP) for t in shown]
    head = np.concatenate([text_line([], NAMES), *numbers], axis=1)
    lines = [head, *(_row(name, pictures) for name, pictures in rows.items())]
    width = max(_LEAST_WIDTH, head.shape[1])
    title = text_line(_title(cfg, sample, int(unparsed_frames(regions_BTHW))), width)
    return np.concatenate([title, *(padded(line, right=width - head.shape[1]) for line in lines)])


def _title(cfg: Config, sample: Sample, unparsed: int) -> Words:
    geometry, mask = geometry_of(cfg), cfg.data.mask
    keep = visible_count(geometry.tubelets, geometry.patches, mask.ratio, mask.rounding)
    title = [(sample.key, INK), (short(sample.source, 40), DIM), (f"{keep} of {geometry.tokens} cubes visible", INK)]
    return [*title, (f"{unparsed} of {geometry.tubelets} frames unparsed", DIM)] if unparsed else title


def _row(name: str, pictures: Sequence[Image]) -> Image:
    """Pictures of one size side by side, their name to the left at half their height."""
    words, shown = text_line([(name, INK)], NAMES), row(pictures)
    above = (len(pictures[0]) - len(words)) // 2
    return np.concatenate([padded(words, above=above, below=len(shown) - len(words) - above), shown], axis=1)
