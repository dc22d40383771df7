"""What a rank will read, without reading it (`marlin dataset order`)."""

import json
from collections.abc import Iterator

from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.errors import UsageError
from pipeline.layout import dataset_store
from train.data.plan import TrainPlan, accumulation, rank_slice


def order_lines(cfg: Config, *, world: int, rank: int, steps: int) -> Iterator[str]:
    """A JSON line for each update of a run: the sample keys, start frames and flips that one rank reads.

    Raises:
        UsageError: there is no such rank, or the batch does not fit the ranks.
    """
    if not 0 <= rank < world:
        raise UsageError(f"--rank {rank} is not one of the {world} ranks 0 to {world - 1}")
    micro_batches = accumulation(cfg, world)
    plan = TrainPlan(cfg, load_dataset(dataset_store(cfg)), "train")
    for step in range(steps):
        clips = [
            clip for micro in range(micro_batches) for clip in plan.step(step, rank_slice(cfg, rank, world, micro))
        ]
        line = {
            "step": step,
            "keys": [clip.sample.key for clip in clips],
            "starts": [clip.start for clip in clips],
            "flips": [clip.flip for clip in clips],
        }
        yield json.dumps(line)
