"""Seconds, utilisation and memory of a training step on one NVIDIA GPU, beside the official algorithm.

    python -m benchmarks.gpu.step -o benchmarks/gpu/results
    python -m benchmarks.gpu.step --dataset URL            # with real shards, too

Ours is the step of a training at ZeRO stage 1, in bf16, on clips of the synthetic loader. The peer is the published
package's network at its published 32-bit setting, and under bf16 autocast. Utilisation is model FLOP/s (attention
included, recomputation not) over the peak of the data sheet. The costliest operations of a step come from a trace.
"""

import argparse
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.results import publish
from benchmarks.train.official import OfficialStep
from benchmarks.train.step import OurStep, masked
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from train.data.batch import Batch
from train.data.datasets import open_data
from train.data.loader import open_loader
from train.data.synthetic import synthetic_batches
from train.flops import peak_flops, update_flops

WARM, STEPS, COSTS = 5, 20, 5


def configure(size: str, clips: int, dataset: str) -> Config:
    """The paper's settings in bf16."""
    source = [f"data.dataset='{dataset}'"] if dataset else ["data.source=synthetic"]
    batch = [f"train.global_batch={clips}", f"train.micro_batch={clips}"]
    return load_config(f"ytf-vit-{size}", ["train.precision=bf16", *batch, *source])


def seconds(step: Callable[[], None]) -> float:
    """Seconds a step, the device's work included."""
    for _ in range(WARM):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def costs(step: Callable[[], None]) -> dict[str, float]:
    """The costliest operations of a step, by their share of the device's time."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        step()
        torch.cuda.synchronize()
    events = sorted(trace.key_averages(), key=lambda event: -event.self_device_time_total)
    whole = sum(event.self_device_time_total for event in events)
    return {event.key: round(event.self_device_time_total / whole, 3) for event in events[:COSTS]}


def shards(cfg: Config, device: torch.device) -> Generator[Batch, None, None]:
    """Batches of the dataset of a configuration."""
    dataset, store = open_data(cfg)
    with open_loader(cfg, dataset, store, split="train", rank=0, world=1, device=device) as batches:
        yield from batches


def timed(name: str, clips: int, step: Callable[[], None], figures: dict[str, Any]) -> float:
    """Seconds a step; rate and memory are noted."""
    torch.cuda.reset_peak_memory_stats()
    found = seconds(step)
    figures[f"{name}: ms"] = round(1e3 * found, 2)
    figures[f"{name}: clips/s"] = round(clips / found, 1)
    figures[f"{name}: GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return found


def measure_ours(size: str, clips: int, dataset: str, device: torch.device, figures: dict[str, Any]) -> float:
    """Seconds of our step on synthetic clips."""
    cfg = configure(size, clips, "")
    batch = next(synthetic_batches(cfg, rank=0, world=1, consumed=0, device=device))
    flops, peak, step = update_flops(cfg, 1), peak_flops(device, "bf16"), OurStep(cfg)
    own = timed(f"{size}, ours", clips, lambda: step(batch), figures)
    figures[f"{size}, ours: TFLOP/s"] = round(flops / own / 1e12, 1)
    if peak is not None:
        figures[f"{size}, ours: utilisation"] = round(flops / own / peak, 3)
    figures[f"{size}, ours: costs"] = costs(lambda: step(batch))
    if dataset:
        with closing(shards(configure(size, clips, dataset), device)) as batches:
            real = timed(f"{size}, ours, real shards", clips, lambda: step(next(batches)), figures)
        figures[f"{size}, real shards: share of the synthetic rate"] = round(own / real, 3)
    return own


def measure_peer(size: str, clips: int, precision: str, device: torch.device, figures: dict[str, Any]) -> float:
    """Seconds of the peer's step on the same clips."""
    cfg = configure(size, clips, "")
    batch = next(synthetic_batches(cfg, rank=0, world=1, consumed=0, device=device))
    mask_BN, step = masked(cfg, batch), OfficialStep(cfg, device, precision)
    return timed(f"{size}, peer {precision}", clips, lambda: step(batch.clips_BCTHW, mask_BN), figures)


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["small", "base", "large"], help="model sizes (default: all)")
    parser.add_argument("--clips", type=int, default=16, help="clips of a step (default: 16)")
    parser.add_argument("--dataset", default="", help="URL of a dataset, for the rate with real shards")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no NVIDIA GPU answers: benchmarks.train.step measures the same on a CPU")
    device = torch.device("cuda", 0)
    figures: dict[str, Any] = {"gpu": torch.cuda.get_device_name(device), "clips": args.clips}
    for size in args.sizes:
        own = measure_ours(size, args.clips, args.dataset, device, figures)
        for precision in ("fp32", "bf16"):
            found = measure_peer(size, args.clips, precision, device, figures)
            figures[f"{size}: times faster than the peer in {precision}"] = round(found / own, 2)
    publish("step", "python -m benchmarks.gpu.step", figures, args.output)


if __name__ == "__main__":
    main()
