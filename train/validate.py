"""Reconstruction error on held-out clips, always the same clips under the same masks."""

from collections.abc import Sequence
from typing import Any

import torch

from train.data.batch import Batch
from train.objective import reconstruction_loss
from train.step import Masker
from train.world import World


@torch.no_grad()
def validation_loss(generator: Any, masker: Masker, batches: Sequence[Batch], world: World) -> float:
    """Mean squared error over the hidden cubes of ``batches``, shared out among the ranks. A collective call.

    Every rank runs the same number of passes, as sharded parameters demand; a rank with nothing left repeats a batch
    and does not count it.
    """
    total = torch.zeros(2, device=world.device)
    for first in range(0, len(batches), world.size):
        index = first + world.rank
        batch = batches[min(index, len(batches) - 1)]
        masked = masker(batch)
        predicted = generator(masked.cubes_BNP, masked.visible_BV, masked.hidden_BM)
        if index < len(batches):
            clips = len(batch.keys)
            total += torch.stack([reconstruction_loss(predicted, masked.target_BMP) * clips, total.new_tensor(clips)])
    if world.size > 1:
        torch.distributed.all_reduce(total)
    return float(total[0] / total[1])
