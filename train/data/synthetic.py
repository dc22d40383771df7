"""Random clips without a dataset, to measure the trainer alone."""

from collections.abc import Generator

import torch

from pipeline.config.schema import Config
from train.data.batch import Batch
from train.data.plan import accumulation, first_step, rank_slice
from train.hashing import PIXELS, mix_tensor, noise_tensor, sample_hash, signed
from train.sizes import TUBELET

_POOL = 4


def synthetic_batches(
    cfg: Config, *, rank: int, world: int, consumed: int, device: torch.device
) -> Generator[Batch, None, None]:
    """Endless micro batches of noise; the clip at a position of the run is the same at every world size.

    Making noise costs more than training on it at small widths, so clips come out of a small pool.
    """
    size, grid = cfg.preprocess.size, cfg.preprocess.size // cfg.preprocess.patch
    seed = torch.tensor([signed(sample_hash(cfg.train.seed, 0, "synthetic"))], device=device)
    counter = torch.arange(_POOL * 3 * cfg.data.frames * size * size, device=device)
    pixels = (noise_tensor(seed, PIXELS, counter) & 0xFF).float().div_(255)
    pool_PCTHW = pixels.view(_POOL, 3, cfg.data.frames, size, size)
    cells_T = torch.arange(cfg.data.frames // TUBELET * grid * grid, device=device)
    micros, step = accumulation(cfg, world), first_step(cfg, consumed)
    while True:
        for micro in range(micros):
            part = rank_slice(cfg, rank, world, micro)
            first = step * cfg.train.global_batch
            keys = tuple(f"synthetic-{position}" for position in range(first + part.start, first + part.stop))
            hashes = [signed(sample_hash(cfg.train.seed, 0, key)) for key in keys]
            hash_B = torch.tensor(hashes, device=device)
            regions_BN = (mix_tensor(hash_B[:, None] + cells_T) & 0x7F).to(torch.uint8)
            yield Batch(
                clips_BCTHW=pool_PCTHW[hash_B % _POOL],
                regions_BTHW=regions_BN.view(len(keys), -1, grid, grid),
                hash_B=hash_B,
                keys=keys,
                starts=(0,) * len(keys),
                flips=(False,) * len(keys),
            )
        step += 1
