"""What a checkpoint costs the training: the pause for saving, and steps that are slower while files travel.

    python -m benchmarks.train.checkpoints -o benchmarks/train/results

ViT-S at the paper's settings, batch 2, on this machine's CPU. Again and again: save, step until the upload is
through, then some steps with nothing beside them, which are the peer. A checkpoint's cost is the pause plus what the
steps beside its upload took longer than the median of the quiet ones, and the share is that of 50 steps. Storage is a
folder, then a real S3 server, which has a machine of its own in real life and here takes its share of the same cores.
Therefore the cost without the server is told too: the pause, and the processor time that this process spends on an
upload while it does nothing else.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.results import publish
from benchmarks.train.step import configure
from pipeline.storage import Store, open_store
from tests.s3_server import run_s3_server
from train.data.synthetic import synthetic_batches
from train.engine import make_engine
from train.export import geometry_of, model_of
from train.join import join_world
from train.model import build_critic
from train.publish import Publisher
from train.retention import Retention
from train.saving import save_state
from train.step import Masker, Stepper
from train.world import choose_accelerator

EVERY = 50
WARM, QUIET = 3, 4


def measure(run: Store, scratch: Path, checkpoints: int, threads: int) -> dict[str, Any]:
    """Costs of some checkpoints in a run."""
    torch.set_num_threads(threads)
    cfg, world = configure("small", "fp32", 1), join_world()
    geometry = geometry_of(cfg)
    engines = {
        "generator": make_engine(model_of(cfg), cfg.train, 1, 1),
        "critic": make_engine(build_critic("small", geometry), cfg.train, 1, 1),
    }
    masker, stepper = Masker(cfg, geometry, world.device), Stepper(cfg, engines["generator"], engines["critic"])
    batch = next(synthetic_batches(cfg, rank=0, world=1, consumed=0, device=world.device))

    def step() -> float:
        start = time.perf_counter()
        stepper([masker(batch)])
        return time.perf_counter() - start

    publisher = Publisher(run, scratch, world, Retention(last=1), patience=60)
    quiet = [step() for _ in range(WARM + QUIET)][WARM:]
    pauses, beside = [], []
    for number in range(1, checkpoints + 1):
        start = time.perf_counter()
        publisher.publish(number, partial(save_state, cfg=cfg, engines=engines, world=world), {})
        pauses.append(time.perf_counter() - start)
        slower: list[float] = []
        while publisher.busy:
            slower.append(step())
        beside.append(slower)
        quiet += [step() for _ in range(QUIET)]
    publisher.wait()
    publisher.publish(checkpoints + 1, partial(save_state, cfg=cfg, engines=engines, world=world), {})
    start = time.process_time()
    publisher.wait()
    processor = time.process_time() - start
    publisher.close()
    usual = statistics.median(quiet)
    costs = [pause + sum(slower) - len(slower) * usual for pause, slower in zip(pauses, beside, strict=True)]
    size = sum(item.size for item in run.list("checkpoints/"))
    return {
        "step, s": round(usual, 3),
        "pause, s": round(statistics.median(pauses), 2),
        "steps beside an upload": statistics.median(map(len, beside)),
        "cost, s": round(statistics.median(costs), 2),
        f"share of {EVERY} steps": round(statistics.median(costs) / (EVERY * usual), 4),
        f"share of {EVERY} steps, each": [round(cost / (EVERY * usual), 4) for cost in costs],
        "processor time of an upload, s": round(processor, 2),
        f"share of {EVERY} steps, pause and own processor time": round(
            (statistics.median(pauses) + processor) / (EVERY * usual), 4
        ),
        "MB of a checkpoint": round(size / 1e6),
    }


def on_s3(folder: Path, checkpoints: int, threads: int) -> Mapping[str, Any]:
    """The same, with a server."""
    with run_s3_server(folder / "server") as server, patch.dict(os.environ, server.environment):
        return measure(open_store(f"s3://{server.bucket}/run"), folder / "scratch-s3", checkpoints, threads)


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=8, help="published to each storage (default: 8)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the training (default: all cores)")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    choose_accelerator()
    figures: dict[str, Any] = {"clips": 2, "threads": args.threads}
    with tempfile.TemporaryDirectory(prefix="marlin-checkpoints-") as name:
        folder = Path(name)
        sides = {
            "folder": measure(open_store(str(folder / "run")), folder / "scratch", args.checkpoints, args.threads),
            "S3": on_s3(folder, args.checkpoints, args.threads),
        }
    for side, found in sides.items():
        figures |= {f"{side}: {key}": value for key, value in found.items()}
    publish("checkpoints", "python -m benchmarks.train.checkpoints", figures, args.output)


if __name__ == "__main__":
    main()
