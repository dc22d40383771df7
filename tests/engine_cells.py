"""Ranks that train many small pairs of engines in one process group: `python tests/engine_cells.py OUT`.

Each rank trains every cell that is supported, restores each under itself (and under the other offload) and writes
what it saw as JSON to OUT/rank-<rank>.json.
"""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from updates import CLIPS, RATE, networks, random_masked

from pipeline.config.schema import Config
from pipeline.config.support import Cell, every_cell, refusal
from train.engine import DTYPES, full_parameters, make_engine, set_learning_rate
from train.join import join_world
from train.nonfinite import NotFinite
from train.saving import load_state
from train.step import Masked, Stepper
from train.world import World

STEPS = 4


def cell_name(cell: Cell) -> str:
    """Name of a cell in the output."""
    return f"{cell.stage}-{cell.precision}-{cell.offload}"


def configure(cell: Cell, world: World) -> Config:
    """The configuration of a cell."""
    micro = CLIPS // world.size
    train = {
        "steps": STEPS,
        "global_batch": CLIPS,
        "micro_batch": micro,
        **{"zero_stage": cell.stage, "precision": cell.precision, "offload_optimizer": cell.offload},
    }
    return Config.model_validate({"train": train, "critic": {"weight": 0.5, "lipschitz": "clip", "clip": 0.05}})


def start(cell: Cell, world: World) -> tuple[Stepper, dict[str, Any]]:
    """Fresh engines of a cell."""
    cfg = configure(cell, world)
    generator, critic = networks()
    engines = {
        "generator": make_engine(generator, cfg.train, 1, cell.stage, offload=cell.offload == "cpu"),
        "critic": make_engine(critic, cfg.train, 1, min(cell.stage, 1)),
    }
    for engine in engines.values():
        set_learning_rate(engine, RATE)
    return Stepper(cfg, engines["generator"], engines["critic"]), engines


def update(stepper: Stepper, cell: Cell, world: World, step: int) -> float:
    """One update on this rank's part of a fixed batch; the mean of the ranks' errors."""
    part = slice(world.rank * CLIPS // world.size, (world.rank + 1) * CLIPS // world.size)
    whole = random_masked(step, CLIPS)
    mine = Masked(*(getattr(whole, name)[part] for name in Masked.__dataclass_fields__))
    masked = replace(mine, cubes_BNP=mine.cubes_BNP.to(DTYPES[cell.precision]))
    loss = stepper([masked])["train/mse"].clone()
    torch.distributed.all_reduce(loss)
    return loss.item() / world.size


def spoiled(stepper: Stepper, engines: dict[str, Any], world: World) -> bool:
    """Whether a gradient that is not finite on the last rank alone leaves all weights of all ranks as they are."""
    before = {name: full_parameters(engine) for name, engine in engines.items()}
    hook = engines["generator"].module.embed.bias.register_hook(
        lambda gradient: gradient * (math.nan if world.rank == world.size - 1 else 1)
    )
    part = random_masked(7, CLIPS // world.size)
    dtype = engines["generator"].module.embed.weight.dtype
    try:
        stepper([replace(part, cubes_BNP=part.cubes_BNP.to(dtype))])
    except NotFinite:
        after = {name: full_parameters(engine) for name, engine in engines.items()}
        return all(torch.equal(after[n][k], before[n][k]) for n in before for k in before[n])
    finally:
        hook.remove()
    return False


def measure(cell: Cell, world: World, folder: Path) -> dict[str, Any]:
    """Losses of a cell, and of its continuation from a checkpoint of its middle."""
    stepper, engines = start(cell, world)
    losses = [update(stepper, cell, world, step) for step in range(STEPS // 2)]
    for name, engine in engines.items():
        engine.save_checkpoint(str(folder / cell_name(cell)), tag=name, save_latest=False)
    kept = spoiled(stepper, engines, world)
    scale = getattr(engines["generator"].optimizer, "loss_scale", 1)
    losses += [update(stepper, cell, world, step) for step in range(STEPS // 2, STEPS)]
    resumed = {}
    offloads = [cell.offload] if cell.stage == 0 else ["none", "cpu"]
    for offload in offloads:
        other = cell._replace(offload=offload)
        stepper, engines = start(other, world)
        load_state(folder / cell_name(cell), configure(other, world), engines, universal=False)
        for engine in engines.values():
            set_learning_rate(engine, RATE)
        resumed[offload] = [update(stepper, other, world, step) for step in range(STEPS // 2, STEPS)]
    return {"losses": losses, "resumed": resumed, "kept": kept, "scale": scale}


def main() -> None:
    """Train every cell."""
    torch.set_num_threads(1)
    world = join_world(60)
    # PyTorch computes in fp16 on every CPU, if slowly: what is tried here is the scaling of losses.
    type(get_accelerator()).is_fp16_supported = lambda self: True
    out = Path(sys.argv[1])
    cells = [cell for cell in every_cell() if refusal(cell) is None]
    found = {cell_name(cell): measure(cell, world, out) for cell in cells}
    (out / f"rank-{world.rank}.json").write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main()
