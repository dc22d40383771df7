"""What a rank will read and how it will be masked, without training (`marlin dataset order`)."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from torch import Tensor

from pipeline.config.schema import Config
from pipeline.errors import UsageError
from train.data.batch import mask_inputs
from train.data.datasets import open_data
from train.data.order import check_nodes
from train.data.plan import Clip, TrainPlan, accumulation, rank_slice
from train.data.regions import tubelet_regions
from train.data.shards import read_regions
from train.export import geometry_of
from train.masking import mask_clips

_PARALLEL_READS = 16


def order_lines(cfg: Config, *, nodes: int, world: int, rank: int, steps: int) -> Iterator[str]:
    """A JSON line for each update of a run: what one rank reads, and a digest of each clip's mask.

    Of the samples only the region grids are read.

    Raises:
        UsageError: there is no such rank, the run reads no dataset, or batch, ranks and nodes do not fit each other.
        MarlinError: while iterating: a region grid is missing or damaged.
    """
    if rank >= world:
        raise UsageError(f"--rank {rank} is not one of the {world} ranks 0 to {world - 1}")
    if cfg.data.source == "synthetic":
        raise UsageError("data.source=synthetic reads no dataset: there is no order to print")
    micro_batches = accumulation(cfg, world)
    dataset, store = open_data(cfg)
    plan = TrainPlan(cfg, dataset, "train")
    check_nodes(plan.order.streams, nodes, world)
    parts = [rank_slice(cfg, rank, world, micro) for micro in range(micro_batches)]
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for step in range(steps):
            clips = [clip for part in parts for clip in plan.step(step, part)]
            grids = pool.map(partial(read_regions, store), [clip.sample for clip in clips])
            regions = [tubelet_regions(clip, grid, cfg.data) for clip, grid in zip(clips, grids, strict=True)]
            masks = mask_clips(cfg.data.mask, *mask_inputs(clips, regions), geometry_of(cfg).side)
            yield json.dumps({"step": step, "node": rank * nodes // world, **_described(clips, masks)})


def mask_digest(mask_N: Tensor) -> str:
    """64 bits that tell masks apart: blake2b of the cubes' bits, 1 for visible, eight to a byte, the first one highest.

    Args:
        mask_N: boolean visible-cube mask of one clip.
    """
    return hashlib.blake2b(np.packbits(mask_N.numpy()).tobytes(), digest_size=8).hexdigest()


def _described(clips: Sequence[Clip], mask_BN: Tensor) -> dict[str, list[object]]:
    return {
        "keys": [clip.sample.key for clip in clips],
        "starts": [clip.start for clip in clips],
        "flips": [clip.flip for clip in clips],
        "masks": [mask_digest(mask_N) for mask_N in mask_BN],
    }
