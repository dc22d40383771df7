"""Reconstruction error of hidden cubes on held-out clips, in all and by facial region, beside simple guesses.

Shapes: B clips, T tubelet frames, N cubes of a clip, V visible and M hidden ones, P values of a cube, R regions.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from eval.features import best_device
from eval.sequences import held_out
from eval.tasks.context import Measured, TaskContext
from pipeline.config.evaluation import EvalConfig
from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.layout import dataset_store
from pipeline.storage import Store
from train.cubes import patchify, unpatchify
from train.data.batch import Batch
from train.data.loader import fixed_clips
from train.masking import make_mask, pool_regions
from train.model import Geometry, MaskedAutoencoder, gather_cubes, split_indices
from train.objective import denormalize_cubes
from train.sizes import CHANNELS

METHODS = ("checkpoint", "mean", "nearest")


@dataclass(frozen=True)
class Reconstruction:
    """Clips, what was hidden in them, and the guesses for it.

    ``guess_BMP`` maps each of `METHODS` to the hidden cubes; ``regions_BN`` is the region bitmask of every cube.
    """

    keys: tuple[str, ...]
    cubes_BNP: Tensor
    mask_BN: Tensor
    hidden_BM: Tensor
    regions_BN: Tensor
    guess_BMP: Mapping[str, Tensor]

    def errors(self, method: str) -> Tensor:
        """Mean squared error of each hidden cube under a method: (B, M), float64."""
        truth_BMP = gather_cubes(self.cubes_BNP, self.hidden_BM)
        return (self.guess_BMP[method] - truth_BMP).double().square().mean(-1)

    def clips(self, method: str, geometry: Geometry) -> Tensor:
        """Clips with their hidden cubes filled in by a method, clamped to [0, 1]: (B, C, T, H, W)."""
        index = self.hidden_BM[..., None].expand(-1, -1, self.cubes_BNP.shape[-1])
        filled = self.cubes_BNP.scatter(1, index, self.guess_BMP[method].to(self.cubes_BNP.dtype))
        shape = (CHANNELS, geometry.frames, geometry.size, geometry.size)
        return unpatchify(filled, geometry.tubelet, geometry.patch, shape).clamp(0, 1)


def reconstruct(model: MaskedAutoencoder, cfg: Config, batch: Batch) -> Reconstruction:
    """Hide part of some clips and guess it.

    The hashes of `fixed_clips` follow from sample keys and ``eval.seed`` only: every checkpoint sees the same masks.
    """
    geometry, mask = model.geometry, cfg.data.mask
    device = next(model.parameters()).device
    side = geometry.size // geometry.patch
    regions_BTN = pool_regions(batch.regions_BTHW.to(device), side).flatten(2)
    hash_B = batch.hash_B.to(device)
    mask_BN = make_mask(mask.strategy, regions_BTN, hash_B, ratio=mask.ratio, rounding=mask.rounding)
    visible_BV, hidden_BM = split_indices(mask_BN, int(mask_BN[0].sum()))
    cubes_BNP = patchify(batch.clips_BCTHW.to(device), geometry.tubelet, geometry.patch)
    with torch.inference_mode():
        guess_BMP = model(cubes_BNP, visible_BV, hidden_BM).float()
    if cfg.train.normalize_target:
        guess_BMP = denormalize_cubes(guess_BMP, gather_cubes(cubes_BNP, hidden_BM))
    guesses = {"checkpoint": guess_BMP, **guess_baselines(cubes_BNP, visible_BV, hidden_BM, side)}
    return Reconstruction(tuple(batch.keys), cubes_BNP, mask_BN, hidden_BM, regions_BTN.flatten(1), guesses)


def guess_baselines(cubes_BNP: Tensor, visible_BV: Tensor, hidden_BM: Tensor, side: int) -> dict[str, Tensor]:
    """Guesses that need no training, (B, M, P) each: the mean visible cube, and the nearest visible cube.

    Distance is counted in cubes over time, row and column; of equally near ones the first is taken.
    """
    seen_BVP = gather_cubes(cubes_BNP, visible_BV)
    mean_BMP = seen_BVP.mean(1, keepdim=True).expand(-1, hidden_BM.shape[1], -1)
    far_BMV = torch.cdist(
        # Products of matrices would round, and ties fall differently.
        _places(hidden_BM, side),
        _places(visible_BV, side),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    return {"mean": mean_BMP, "nearest": gather_cubes(seen_BVP, far_BMV.argmin(-1))}


@dataclass
class ErrorSums:
    """Squared error of hidden cubes, summed up over clips, in all (last entry) and by region."""

    regions: tuple[str, ...]
    squared: dict[str, Tensor]
    cubes: Tensor

    @classmethod
    def empty(cls, regions: Sequence[str]) -> "ErrorSums":
        """Nothing measured yet."""
        zeros = torch.zeros(len(regions) + 1, dtype=torch.float64)
        return cls(tuple(regions), {method: zeros.clone() for method in METHODS}, zeros.clone())

    def add(self, found: Reconstruction) -> None:
        """Count the hidden cubes of some clips; a cube counts with every region that touches its patch."""
        bits_BM = found.regions_BN.gather(1, found.hidden_BM)
        groups = [(bits_BM >> region) & 1 == 1 for region in range(len(self.regions))]
        member_RBM = torch.stack([*groups, torch.ones_like(bits_BM, dtype=torch.bool)]).double()
        self.cubes += member_RBM.sum((1, 2)).cpu()
        for method in found.guess_BMP:
            self.squared[method] += (member_RBM * found.errors(method)).sum((1, 2)).cpu()

    def table(self) -> dict[str, dict[str, float | int]]:
        """By region, "all" last: hidden cubes and each method's mean squared error; untouched regions are left out."""
        rows: dict[str, dict[str, float | int]] = {}
        for index, region in enumerate((*self.regions, "all")):
            cubes = int(self.cubes[index])
            if cubes:
                rows[region] = {"cubes": cubes}
                rows[region] |= {method: float(total[index]) / cubes for method, total in self.squared.items()}
        return rows


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of values in [0, 1]; at most 100, so that a perfect guess stays a number."""
    return min(100.0, -10 * math.log10(max(mse, 1e-30)))


def store(cfg: Config) -> Store:
    """The run's own dataset."""
    return dataset_store(cfg)


def settings(cfg: EvalConfig) -> dict[str, Any]:
    """The part of the configuration that the result depends on."""
    return {"seed": cfg.seed}


def check(cfg: Config, dataset: Dataset) -> None:
    """Whether the dataset can serve this task.

    Raises:
        MarlinError: nothing is held out.
    """
    held_out(dataset)


def run(context: TaskContext) -> Measured:
    """Measure every held-out sample once.

    Raises:
        MarlinError: nothing is held out.
    """
    samples = held_out(context.dataset)
    model = context.model.eval().to(best_device())
    sums = ErrorSums.empty(context.dataset.info["regions"])
    clips = 0
    with tqdm(total=len(samples), desc="reconstruction", unit="clip", disable=not context.progress) as bar:
        for batch in clips_for(context.cfg, context.dataset, context.store, split="val", limit=len(samples)):
            sums.add(reconstruct(model, context.cfg, batch))
            clips += len(batch.keys)
            bar.update(len(batch.keys))
    table = sums.table()
    metrics = {"mse": table["all"]["checkpoint"], "psnr": psnr(table["all"]["checkpoint"])}
    for method in METHODS[1:]:
        metrics |= {f"{method}_mse": table["all"][method], f"{method}_psnr": psnr(table["all"][method])}
    metrics |= {f"mse_{region}": row["checkpoint"] for region, row in table.items() if region != "all"}
    mask = context.cfg.data.mask.model_dump(mode="json")
    return Measured({"metrics": metrics, "clips": clips, "regions": table, "mask": mask})


def clips_for(cfg: Config, dataset: Dataset, store: Store, *, split: str, limit: int) -> Iterator[Batch]:
    """The centre clips of a split, ``eval.batch`` at a time, closed when exhausted."""
    train = cfg.train.model_copy(update={"micro_batch": min(cfg.eval.batch, limit)})
    sized = cfg.model_copy(update={"train": train})
    with fixed_clips(sized, dataset, store, split=split, limit=limit, device=best_device()) as loader:
        yield from loader


def _places(index_BK: Tensor, side: int) -> Tensor:
    """Time, row and column of cubes: (B, K, 3)."""
    time = torch.div(index_BK, side * side, rounding_mode="floor")
    row = torch.div(index_BK, side, rounding_mode="floor") % side
    return torch.stack([time, row, index_BK % side], dim=-1).float()
