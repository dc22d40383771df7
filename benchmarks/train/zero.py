"""Memory of weights, gradients and optimiser state by ZeRO stage: measured at two ranks, computed for more.

    python -m benchmarks.train.zero -o benchmarks/train/results

A rank counts the bytes of all its tensors before its second update, and follows what the allocator gives and gets back
during that; the most of the worse rank is reported. Clips are of two 32×32 frames, so that activations weigh nothing
beside the networks, which are of full width and depth.
"""

import argparse
import gc
import json
import multiprocessing
import os
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.results import publish
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from tests.s3_server import free_port
from train.data.synthetic import synthetic_batches
from train.engine import BUCKET, make_engine
from train.export import geometry_of, model_of
from train.join import join_world
from train.model import build_critic
from train.step import Masker, Stepper
from train.world import choose_accelerator

WORLD = 2
CELLS = ((0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16"))
GPUS = (4, 8, 16, 32, 64)
_STAGE_0_BUCKET = 500_000_000  # of DeepSpeed, fixed
_PATIENCE_S = 300  # a rank that failed answers never


def configure(size: str, stage: int, precision: str, world: int) -> Config:
    """The paper's networks, the smallest clips."""
    return load_config(
        f"ytf-vit-{size}",
        [
            *("data.source=synthetic", "data.frames=2", "data.stride=1", "preprocess.size=32", "data.mask.ratio=0.5"),
            *(f"train.zero_stage={stage}", f"train.precision={precision}"),
            *(f"train.global_batch={world}", "train.micro_batch=1"),
        ],
    )


def predict(parameters: int, stage: int, precision: str, world: int) -> float:
    """Bytes of one network on a rank at the worse of two moments, as DeepSpeed has them.

    At the end of the backward pass there are gradients that are not reduced yet, and buckets that reduce them. In the
    optimiser's step the rank's share of the gradients is there twice, as it was reduced and joined in 32 bits; at stage
    3 with half-precision weights a third time, flat.
    """
    width = 4 if precision == "fp32" else 2
    if stage == 0:
        return parameters * (4 + 4 + 8) + 4 * min(_STAGE_0_BUCKET, parameters)
    bucket, share = min(BUCKET, parameters), parameters / world
    weights = width * (share if stage == 3 else parameters)
    state = (4 + 8) * share
    live = width * min(2 * BUCKET, parameters) if stage == 3 else 0  # weights gathered for their layers
    if stage == 1:
        gradients = parameters + min(2 * bucket, parameters)
    else:
        gradients = min(share + 3 * bucket, 2 * parameters + (share if stage == 3 else 0))
    backward = live + width * gradients
    step = (width + 4 + (width if stage == 3 and precision != "fp32" else 0)) * share
    return weights + state + max(backward, step)


def predict_both(parameters: tuple[int, int], stage: int, precision: str, world: int) -> float:
    """Bytes of generator and critic, which is never sharded beyond stage 1."""
    generator, critic = parameters
    return predict(generator, stage, precision, world) + predict(critic, min(stage, 1), precision, world)


def count(size: str) -> tuple[int, int]:
    """Parameters of generator and critic."""
    with torch.device("meta"):
        cfg = configure(size, 1, "fp32", 1)
        networks = model_of(cfg), build_critic(size, geometry_of(cfg))
    generator, critic = (sum(parameter.numel() for parameter in network.parameters()) for network in networks)
    return generator, critic


def live_bytes() -> int:
    """Bytes of all tensors."""
    storages = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor) and not thing.is_meta:
            for tensor in (thing, thing.grad if thing.is_leaf else None):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def measure(cfg: Config, rank: int, port: str, answers: Any) -> None:
    """The most bytes of a rank in an update."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(WORLD), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=port
    )
    choose_accelerator()
    torch.set_num_threads(1)
    world, stage = join_world(), cfg.train.zero_stage
    batches = synthetic_batches(cfg, rank=rank, world=WORLD, consumed=0, device=world.device)
    generator = make_engine(model_of(cfg), cfg.train, 1, stage)
    critic = make_engine(build_critic(cfg.model.size, geometry_of(cfg)), cfg.train, 1, min(stage, 1))
    masker, stepper = Masker(cfg, geometry_of(cfg), world.device), Stepper(cfg, generator, critic)
    stepper([masker(next(batches))])  # momenta are there from now on
    gc.collect()
    before = live_bytes()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        stepper([masker(next(batches))])
    answers.put(before + highest(recorded))


def highest(recorded: profile) -> int:
    """The most bytes that were allocated at once beside those at the start."""
    events: Any = recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate((size for _, size in changes), initial=0))


def on_ranks(cfg: Config) -> int:
    """The most of both ranks."""
    context = multiprocessing.get_context("spawn")
    answers, port = context.Queue(), str(free_port())
    ranks = [context.Process(target=measure, args=(cfg, rank, port, answers)) for rank in range(WORLD)]
    for process in ranks:
        process.start()
    found = [answers.get(timeout=_PATIENCE_S) for _ in ranks]
    for process in ranks:
        process.join()
    return max(found)


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["small", "base", "large"], help="model sizes (default: all)")
    parser.add_argument("--measured", nargs="+", default=["small", "base"], help="those measured (default: small base)")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    for size in args.sizes:
        parameters = count(size)
        for stage, precision in CELLS:
            name = f"{size}, stage {stage}, {precision}"
            predicted = {world: predict_both(parameters, stage, precision, world) for world in (WORLD, *GPUS)}
            if size in args.measured:
                measured = on_ranks(configure(size, stage, precision, WORLD))
                figures[f"{name}: 2 ranks, MB measured"] = round(measured / 1e6)
                figures[f"{name}: 2 ranks, MB predicted"] = round(predicted[WORLD] / 1e6)
                figures[f"{name}: predicted / measured"] = round(predicted[WORLD] / measured, 3)
            figures |= {f"{name}: {world} GPUs, MB predicted": round(predicted[world] / 1e6) for world in GPUS}
            print(json.dumps({key: value for key, value in figures.items() if key.startswith(name)}), flush=True)
    publish("zero", "python -m benchmarks.train.zero", figures, args.output)


if __name__ == "__main__":
    main()
