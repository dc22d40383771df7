"""Seconds, utilisation and memory of a training step on one NVIDIA GPU, beside the official algorithm.

    python -m benchmarks.gpu.step -o benchmarks/gpu/results
    python -m benchmarks.gpu.step --dataset URL            # with real shards, too
    python -m benchmarks.gpu.step --compile --clips 16 64  # with `model.compile`, too, and of several batch sizes

Ours is the step of a training at ZeRO stage 1, in bf16, on clips of the synthetic loader. The peer is the published
package's network at its published 32-bit setting, and under bf16 autocast. Utilisation is model FLOP/s (attention
included, recomputation not) over the peak of the data sheet. The costliest operations of a step come from a trace, and
so does the share of the step in which the device worked.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
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


def configure(size: str, clips: int, data: Sequence[str]) -> Config:
    """The paper's settings in bf16."""
    batch = [f"train.global_batch={clips}", f"train.micro_batch={clips}"]
    return load_config(f"ytf-vit-{size}", ["train.precision=bf16", *batch, *data])


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


def costs(step: Callable[[], None], found: float) -> dict[str, float]:
    """The costliest operations of a step by their share of the device's time, and its share of `found` seconds."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        step()
        torch.cuda.synchronize()
    kernels = [event for event in trace.key_averages() if event.device_type == DeviceType.CUDA]
    whole = sum(event.self_device_time_total for event in kernels)
    most = sorted(kernels, key=lambda event: -event.self_device_time_total)[:COSTS]
    shares = {event.key[:80]: round(event.self_device_time_total / whole, 3) for event in most}
    return shares | {"busy": round(whole / 1e6 / found, 3)}


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


def measure_ours(
    name: str,
    cfg: Config,
    real: Config | None,
    device: torch.device,
    figures: dict[str, Any],
    *,
    compiled: bool = False,
) -> float:
    """Seconds of our step on synthetic clips; with the shards of `real` beside it."""
    clips = cfg.train.global_batch
    batch = next(synthetic_batches(cfg, rank=0, world=1, consumed=0, device=device))
    flops, peak, step = update_flops(cfg, 1), peak_flops(device, "bf16"), OurStep(cfg, compiled)
    own = timed(name, clips, lambda: step(batch), figures)
    figures[f"{name}: TFLOP/s"] = round(flops / own / 1e12, 1)
    if peak is not None:
        figures[f"{name}: utilisation"] = round(flops / own / peak, 3)
    figures[f"{name}: costs"] = costs(lambda: step(batch), own)
    if real is not None:
        with closing(shards(real, device)) as batches:
            found = timed(f"{name}, real shards", clips, lambda: step(next(batches)), figures)
        figures[f"{name}, real shards: share of the synthetic rate"] = round(own / found, 3)
    return own


def measure_peer(name: str, cfg: Config, precision: str, device: torch.device, figures: dict[str, Any]) -> float:
    """Seconds of the peer's step on the same clips."""
    batch = next(synthetic_batches(cfg, rank=0, world=1, consumed=0, device=device))
    mask_BN, step = masked(cfg, batch), OfficialStep(cfg, device, precision)
    return timed(name, cfg.train.global_batch, lambda: step(batch.clips_BCTHW, mask_BN), figures)


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["small", "base", "large"], help="model sizes (default: all)")
    parser.add_argument("--clips", type=int, nargs="+", default=[16], help="clips of a step (default: 16)")
    parser.add_argument("--compile", action="store_true", help="measure `model.compile`, too")
    parser.add_argument("--dataset", default="", help="URL of a dataset, for the rate with real shards")
    parser.add_argument("--decoder", default="dali", choices=["dali", "opencv"], help="of real shards")
    parser.add_argument("--threads", type=int, default=8, help="that decode real shards (default: 8)")
    parser.add_argument("--no-peer", action="store_true", help="measure ours alone")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no NVIDIA GPU answers: benchmarks.train.step measures the same on a CPU")
    device = torch.device("cuda", 0)
    figures: dict[str, Any] = {"gpu": torch.cuda.get_device_name(device)}
    real = [f"data.dataset='{args.dataset}'", f"data.decoder={args.decoder}", f"data.threads={args.threads}"]
    for size, clips in itertools.product(args.sizes, args.clips):
        name, cfg = f"{size}, {clips} clips", configure(size, clips, ["data.source=synthetic"])
        shards_cfg = configure(size, clips, real) if args.dataset else None
        own = measure_ours(f"{name}, ours", cfg, shards_cfg, device, figures)
        if args.compile:
            measure_ours(f"{name}, ours compiled", cfg, shards_cfg, device, figures, compiled=True)
        for precision in () if args.no_peer else ("fp32", "bf16"):
            found = measure_peer(f"{name}, peer {precision}", cfg, precision, device, figures)
            figures[f"{name}: times faster than the peer in {precision}"] = round(found / own, 2)
    publish("step", "python -m benchmarks.gpu.step", figures, args.output)


if __name__ == "__main__":
    main()
