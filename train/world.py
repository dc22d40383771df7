"""This process among the ranks of the run."""

import os
from dataclasses import dataclass

import torch
from torch._C._distributed_c10d import Store

LAUNCHER = "MARLIN_LAUNCHER_PID"
"""Variable that tells the ranks which process started them."""


@dataclass(frozen=True)
class World:
    """This process among the ranks of the run, which are spread evenly over `nodes`."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    nodes: int = 1
    store: Store | None = None  # where the ranks met

    @property
    def leads(self) -> bool:
        """Rank 0 speaks for the run."""
        return self.rank == 0


def choose_accelerator() -> None:
    """Tell DeepSpeed where to run; it looks only once, when it is imported."""
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
