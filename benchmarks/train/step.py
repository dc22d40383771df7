"""Seconds and memory of a training step on this machine's CPU, beside the official algorithm.

    python -m benchmarks.train.step -o benchmarks/train/results

Ours is the step of a training: masks, the two DeepSpeed engines, loss parts; plain, and with `model.compile`. The peer
gets its masks ready-made. All take the same clips (random pixels, whole region grids) on the same threads in rounds
that alternate; each precision and size has processes of its own. Memory is measured apart, one process a side: the most
that the process held in a step, less what it held before the networks were made, less parameters, gradients and
optimiser state.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from benchmarks.results import publish
from benchmarks.train.official import OfficialStep
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from train.data.batch import Batch
from train.data.synthetic import synthetic_batches
from train.engine import make_engine
from train.export import geometry_of, model_of
from train.flops import update_flops
from train.join import join_world
from train.model import build_critic
from train.step import Masker, Stepper
from train.world import choose_accelerator

CLIPS = 2
WARM, STEPS = 2, 3
_PATIENCE_S = 1800  # a process that failed answers never


def configure(size: str, precision: str, stage: int) -> Config:
    """The paper's settings, for a batch that a CPU can take."""
    return load_config(
        f"ytf-vit-{size}",
        [
            f"train.global_batch={CLIPS}",
            f"train.micro_batch={CLIPS}",
            f"train.precision={precision}",
            f"train.zero_stage={stage}",
            "data.source=synthetic",
        ],
    )


class OurStep:
    """The step as the training loop runs it; on request with `model.compile`."""

    def __init__(self, cfg: Config, compiled: bool = False) -> None:
        world = join_world()
        geometry = geometry_of(cfg)
        self._masker = Masker(cfg, geometry, world.device)
        generator = model_of(cfg)
        if compiled:
            generator.compile(dynamic=False)
        engines = [
            make_engine(generator, cfg.train, 1, cfg.train.zero_stage),
            make_engine(build_critic(cfg.model.size, geometry), cfg.train, 1, min(cfg.train.zero_stage, 1)),
        ]
        self._stepper = Stepper(cfg, *engines)
        self.generator, self.critic = (engine.module for engine in engines)

    def __call__(self, batch: Batch) -> None:
        """One update of each network."""
        self._stepper([self._masker(batch)])


def measure_time(cfg: Config, threads: int, rounds: int, answers: Any) -> None:
    """Seconds a step of all, by round."""
    choose_accelerator()
    torch.set_num_threads(threads)
    batch = next(synthetic_batches(cfg, rank=0, world=1, consumed=0, device=torch.device("cpu")))
    mask_BN = masked(cfg, batch)
    ours, compiled, peer = OurStep(cfg), OurStep(cfg, compiled=True), OfficialStep(cfg, torch.device("cpu"), "fp32")
    sides = {
        "ours": lambda: ours(batch),
        "ours compiled": lambda: compiled(batch),
        "peer": lambda: peer(batch.clips_BCTHW, mask_BN),
    }
    for step in sides.values():
        timed(step, WARM)
    answers.put([{name: timed(step, 1) for name, step in sides.items()} for _ in range(rounds)])


def timed(step: Callable[[], None], count: int) -> float:
    """Seconds a step."""
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def measure_memory(cfg: Config, threads: int, side: str, answers: Any) -> None:
    """Bytes that a step needs at its peak beside its state, and in all."""
    choose_accelerator()
    torch.set_num_threads(threads)
    batch = next(synthetic_batches(cfg, rank=0, world=1, consumed=0, device=torch.device("cpu")))
    mask_BN = masked(cfg, batch)
    join_world()
    before = psutil.Process().memory_info().rss
    if side == "ours":
        own = OurStep(cfg)
        networks, step = (own.generator, own.critic), lambda: own(batch)
    else:
        peer = OfficialStep(cfg, torch.device("cpu"), "fp32")
        networks, step = (peer.generator, peer.critic), lambda: peer(batch.clips_BCTHW, mask_BN)
    state = 16 * sum(parameter.numel() for network in networks for parameter in network.parameters())
    timed(step, WARM)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    timed(step, STEPS)
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    answers.put((peak - before - state, peak - before))


def masked(cfg: Config, batch: Batch) -> Tensor:
    """The masks that ours would make."""
    geometry = geometry_of(cfg)
    visible_BV = Masker(cfg, geometry, batch.clips_BCTHW.device)(batch).visible_BV
    shape = len(batch.keys), geometry.tokens
    return torch.zeros(shape, dtype=torch.bool, device=visible_BV.device).scatter_(1, visible_BV, True)


def alone(work: Callable[..., None], *arguments: Any) -> Any:
    """What a function answers in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=work, args=(*arguments, answers))
    process.start()
    answer = answers.get(timeout=_PATIENCE_S)
    process.join()
    return answer


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["small", "base"], help="model sizes (default: small base)")
    parser.add_argument("--precisions", nargs="+", default=["fp32"], help="of ours; the peer runs in 32 bits")
    parser.add_argument("--stage", type=int, default=0, help="ZeRO stage (default: 0, one process shares nothing)")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each side, in turns (default: 12)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both (default: all cores)")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    figures: dict[str, Any] = {"clips": CLIPS, "threads": args.threads, "ZeRO stage": args.stage}
    for size in args.sizes:
        for precision in args.precisions:
            name, cfg = f"{size} {precision}", configure(size, precision, args.stage)
            rounds = alone(measure_time, cfg, args.threads, args.rounds)
            for side in rounds[0]:
                figures[f"{name}: {side}, s"] = round(statistics.median(times[side] for times in rounds), 3)
            for side in ("ours", "ours compiled"):
                ratios = [times["peer"] / times[side] for times in rounds]
                figures[f"{name}: {side}, times faster"] = round(statistics.median(ratios), 2)
                figures[f"{name}: {side}, times faster (rounds)"] = [round(ratio, 2) for ratio in ratios]
            figures[f"{name}: ours, GFLOP/s"] = round(update_flops(cfg, 1) / figures[f"{name}: ours, s"] / 1e9, 1)
            found = {side: alone(measure_memory, cfg, args.threads, side) for side in ("ours", "peer")}
            for side, (beside, whole) in found.items():
                figures[f"{name}: {side}, MB beside state"] = round(beside / 1e6)
                figures[f"{name}: {side}, MB in all"] = round(whole / 1e6)
            figures[f"{name}: memory beside state, ours / peer"] = round(found["ours"][0] / found["peer"][0], 3)
            print(json.dumps(figures), flush=True)
    publish("step", "python -m benchmarks.train.step", figures, args.output)


if __name__ == "__main__":
    main()
