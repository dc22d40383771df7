"""Fasking masks of a batch of 64, beside the loop over label maps that the official dataset runs for each sample.

    python -m benchmarks.train.masks -o benchmarks/train/results

Clips and label maps are those of a dataset, by default of the pinned sample videos, which are preprocessed first. Both
sides mask the same clips, on one thread of one CPU core, in rounds that alternate. Once everything is in memory; once
the official side reads its maps (eight .npy files of 64-bit labels a clip, in the page cache) and ours the region grids
out of the shards. Last, our masks are set against forward and backward passes of ViT-B in 32 bits on the training's
device; critic and optimiser are left out, so that the share is more than that of a step.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks.preprocess.corpus import make_config, make_corpus
from benchmarks.results import publish
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.dataset import Dataset, load_dataset
from pipeline.layout import dataset_store
from pipeline.storage import Store
from preprocess.inspect.show import label_maps
from preprocess.stage import run_preprocess
from train.data.access import LocalShards
from train.data.batch import mask_inputs
from train.data.loader import open_loader
from train.data.plan import Clip, TrainPlan
from train.data.regions import tubelet_regions
from train.data.shards import ShardReader
from train.export import geometry_of
from train.masking import mask_clips
from train.model import build_model
from train.objective import reconstruction_loss
from train.sizes import TUBELET
from train.step import Masker

BATCH, ROUNDS, STEPS = 64, 15, 3
OURS_HELD, LOOP_HELD = "ours, from memory", "official loop, from memory"
OURS_READING, LOOP_READING = "ours, reading grids", "official loop, reading maps"
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """A batch of clips: what our side reads, and what the official one does."""

    cfg: Config
    dataset: Dataset
    store: Store
    clips: Sequence[Clip]
    files: Sequence[Sequence[Path]]


def official_mask(maps: Sequence[Labels], ratio: float, patch: int, dice: np.random.Generator) -> Tensor:
    """One sample's visible cubes (T*N): each tubelet frame pools one region after another until enough are touched."""
    order = [0, 1, *dice.permutation([2, 3, 4, 5, 6]).tolist()]
    eligible = []
    for labels in maps:
        frame = torch.from_numpy(labels)[None]
        touched = torch.zeros(1, frame.shape[1] // patch, frame.shape[2] // patch)
        for region in order:
            touched = torch.maximum(touched, F.max_pool2d((frame == region).float(), patch))
            if touched.mean() >= 1 - ratio:
                break
        eligible.append(touched.flatten() > 0)
    mask = torch.cat(eligible)
    candidates = mask.nonzero().flatten().numpy()
    dropped = dice.choice(candidates, len(candidates) - int(len(mask) * (1 - ratio)), replace=False)
    mask[torch.from_numpy(dropped)] = False
    return mask


def official_batch(corpus: Corpus, maps: Sequence[Sequence[Labels]]) -> Tensor:
    """The masks of a batch, sample by sample."""
    dice, mask = np.random.default_rng(0), corpus.cfg.data.mask
    return torch.stack([official_mask(own, mask.ratio, corpus.cfg.model.patch, dice) for own in maps])


def read_maps(corpus: Corpus) -> list[list[Labels]]:
    """The label maps of each clip, from the official layout's files."""
    return [[np.load(path) for path in own] for own in corpus.files]


def sample_config(storage: Path) -> Config:
    """A run over the preprocessed sample videos; preprocesses them unless that is done."""
    corpus = storage / "videos"
    cfg = make_config(corpus if corpus.exists() else make_corpus(corpus, 1), storage)
    if not dataset_store(cfg).exists("dataset.json"):
        run_preprocess(cfg, progress=False)
    batch = cfg.train.model_copy(update={"global_batch": BATCH, "micro_batch": BATCH})
    return cfg.model_copy(update={"train": batch})


def make_batch(folder: Path, cfg: Config) -> Corpus:
    """The clips of a run's first step, and their label maps in the official layout below `folder`."""
    store = dataset_store(cfg)
    dataset = load_dataset(store)
    clips = TrainPlan(cfg, dataset, "train").step(0)
    files = []
    for number, clip in enumerate(clips):
        maps = label_maps(store, clip.sample, cfg.preprocess.size)[clip.frames(cfg.data)[::TUBELET]]
        files.append([folder / f"{number:02d}-{place}.npy" for place in range(len(maps))])
        for path, labels in zip(files[-1], maps, strict=True):
            np.save(path, labels.astype(np.int64))
    return Corpus(cfg, dataset, store, clips, files)


def alternate(sides: dict[str, Callable[[], Tensor]], visible: int) -> dict[str, float]:
    """Median milliseconds of each side; every mask must show the same number of cubes."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            mask_BN = side()
            taken[name].append(1e3 * (time.perf_counter() - start))
            if set(mask_BN.sum(dim=1).tolist()) != {visible}:
                raise RuntimeError(f"{name}: not {visible} visible cubes in each clip")
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def compare(corpus: Corpus) -> dict[str, float]:
    """Milliseconds of a batch of masks on each side, from memory and with reading."""
    cfg, side = corpus.cfg, geometry_of(corpus.cfg).side
    shards = LocalShards(corpus.store, corpus.dataset.shards)
    reader = ShardReader(corpus.dataset, shards)
    maps = read_maps(corpus)

    def grids() -> tuple[Tensor, Tensor]:
        read = [tubelet_regions(clip, reader.regions(clip.sample), cfg.data) for clip in corpus.clips]
        return mask_inputs(corpus.clips, read)

    held = grids()
    sides = {
        OURS_HELD: lambda: mask_clips(cfg.data.mask, *held, side),
        LOOP_HELD: lambda: official_batch(corpus, maps),
        OURS_READING: lambda: mask_clips(cfg.data.mask, *grids(), side),
        LOOP_READING: lambda: official_batch(corpus, read_maps(corpus)),
    }
    try:
        return alternate(sides, int(geometry_of(cfg).tokens * (1 - cfg.data.mask.ratio)))
    finally:
        shards.close()


def passes(batch: int, device: torch.device) -> tuple[float, float]:
    """Milliseconds of the masks of 64 clips, and of forward and backward passes of ViT-B a clip, on a device."""
    size = (f"train.micro_batch={batch}", f"train.global_batch={batch}")
    cfg = load_config("ytf-vit-base", ["data.source=synthetic", "train.steps=1", *size])
    geometry = geometry_of(cfg)
    model, masker = build_model(cfg.model.size, geometry).to(device), Masker(cfg, geometry, device)
    with open_loader(cfg, None, None, split="train", rank=0, world=1, device=device) as loader:
        made = next(loader)
    masked = masker(made)
    repeats = -(-BATCH // batch)
    regions_BTHW, hash_B = made.regions_BTHW.repeat(repeats, 1, 1, 1)[:BATCH], made.hash_B.repeat(repeats)[:BATCH]

    def step() -> None:
        predicted_BMP = model(masked.cubes_BNP, masked.visible_BV, masked.hidden_BM)
        reconstruction_loss(predicted_BMP, masked.target_BMP).backward()
        model.zero_grad()

    masks_ms = timed(lambda: mask_clips(cfg.data.mask, regions_BTHW, hash_B, geometry.side), ROUNDS, device)
    return masks_ms, timed(step, STEPS, device) / batch


def timed(work: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Median milliseconds, the first round left out."""
    taken = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken[1:])


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", type=Path, help="folder that keeps the preprocessed sample videos for next time")
    parser.add_argument("--passes", type=int, help="clips of a forward pass (default: 2, on a GPU 64)")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory(prefix="marlin-bench-") as folder:
        found = compare(make_batch(Path(folder), sample_config(args.storage or Path(folder, "storage"))))
    masks_ms, clip_ms = passes(args.passes or (BATCH if device.type == "cuda" else 2), device)
    figures = {
        "clips of a batch": BATCH,
        **{f"{name}: ms a batch": round(value, 2) for name, value in found.items()},
        "official / ours, from memory (target 5)": round(found[LOOP_HELD] / found[OURS_HELD], 1),
        "official / ours, reading counted (target 20)": round(found[LOOP_READING] / found[OURS_READING], 1),
        "device of the passes": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread",
        "masks there: ms a batch": round(masks_ms, 2),
        "ViT-B, forward and backward: ms a clip": round(clip_ms, 1),
        "masks / passes (target below 1%)": f"{masks_ms / BATCH / clip_ms:.4%}",
    }
    publish("masks", "python -m benchmarks.train.masks", figures, args.output)


if __name__ == "__main__":
    main()
