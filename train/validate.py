"""Reconstruction error on held-out clips, always the same clips under the same masks."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from train.data.batch import Batch
from train.objective import reconstruction_loss
from train.step import Masked, Masker
from train.world import World


class Validation(NamedTuple):
    """Mean squared error over hidden cubes, and an example of this rank: a masked batch and its reconstruction."""

    mse: float
    masked: Masked
    predicted_BMP: Tensor


@torch.no_grad()
def validate(generator: Any, masker: Masker, batches: Iterable[Batch], total: int, world: World) -> Validation:
    """Measure held-out clips, shared out among the ranks. A collective call.

    Args:
        generator: engine of the masked autoencoder.
        masker: masks and targets.
        batches: this rank's share (`train.data.loader.fixed_clips`): as many on all ranks, as sharded weights demand.
        total: batches of all ranks together; those that come after are repetitions and do not count.
        world: this rank.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=world.device)
    example: tuple[Masked, Tensor] | None = None
    for number, batch in enumerate(batches):
        masked = masker(batch)
        predicted_BMP = generator(masked.cubes_BNP, masked.visible_BV, masked.hidden_BM)
        example = example or (masked, predicted_BMP)
        if number * world.size + world.rank < total:
            clips = len(batch.keys)
            sums += torch.stack([reconstruction_loss(predicted_BMP, masked.target_BMP) * clips, sums.new_tensor(clips)])
    if world.size > 1:
        torch.distributed.all_reduce(sums)
    if example is None:
        raise ValueError("there is nothing to validate")
    return Validation(float(sums[0] / sums[1]), *example)
