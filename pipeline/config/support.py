"""Which engines train: ZeRO stage × precision × offload. `docs/training.md` has the table."""

from collections.abc import Iterator
from itertools import product
from typing import Literal, NamedTuple, get_args

Precision = Literal["fp32", "bf16", "fp16"]
Stage = Literal[0, 1, 2, 3]
Offload = Literal["none", "cpu"]


class Cell(NamedTuple):
    """One way to run the engines."""

    stage: Stage
    precision: Precision
    offload: Offload


def every_cell() -> Iterator[Cell]:
    """All that a configuration can ask for."""
    for stage, precision, offload in product(get_args(Stage), get_args(Precision), get_args(Offload)):
        yield Cell(stage, precision, offload)


def refusal(cell: Cell, *, fp16_works: bool = True) -> str | None:
    """Why a cell is not supported, None if it is.

    Args:
        cell: what was asked for.
        fp16_works: whether the machine that trains computes in fp16.
    """
    if cell.stage == 0 and cell.precision == "bf16":
        return "train.precision=bf16 diverges at train.zero_stage=0: use stage 1, 2 or 3"
    if cell.stage == 0 and cell.precision == "fp16":
        return (
            "train.precision=fp16 has no 32-bit weights to clip and to publish at train.zero_stage=0: "
            "use stage 1, 2 or 3"
        )
    if cell.stage == 0 and cell.offload == "cpu":
        return "train.offload_optimizer=cpu has no effect at train.zero_stage=0: use stage 1, 2 or 3"
    if cell.precision == "fp16" and not fp16_works:
        return "train.precision=fp16 needs a GPU, or a CPU that computes in fp16: use bf16 or fp32 here"
    return None
