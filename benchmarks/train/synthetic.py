"""What `data.source=synthetic` costs beside the training it is to measure: seconds of a batch, and of its two passes.

    python -m benchmarks.train.synthetic -o benchmarks/train/results

The passes are forward and backward of the masked autoencoder alone: no critic, no optimiser, no masking, which a step
has besides. So the share given here is more than that of a step.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks.results import publish
from pipeline.config.load import load_config
from train.data.batch import Batch
from train.data.loader import open_loader
from train.export import geometry_of, model_of
from train.model import MaskedAutoencoder
from train.objective import reconstruction_loss
from train.step import Masked, Masker


def passes(model: MaskedAutoencoder, masked: Masked) -> None:
    """Forward and backward."""
    predicted_BMP = model(masked.cubes_BNP, masked.visible_BV, masked.hidden_BM)
    reconstruction_loss(predicted_BMP, masked.target_BMP).backward()
    model.zero_grad()


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="ytf-vit-base")
    parser.add_argument("--batch", type=int, default=2, help="clips of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = f"train.micro_batch={args.batch}", f"train.global_batch={args.batch}"
    cfg = load_config(args.preset, ["data.source=synthetic", "train.steps=1", *size])
    model, masker = model_of(cfg).to(device), Masker(cfg, geometry_of(cfg), device)
    seconds: dict[str, list[float]] = {"batch": [], "passes": []}

    def timed(name: str, start: float) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        seconds[name].append(now - start)
        return now

    with open_loader(cfg, None, None, split="train", rank=0, world=1, device=device) as loader:
        for _ in range(args.rounds + 1):
            start = time.perf_counter()
            batch: Batch = next(loader)
            start = timed("batch", start)
            masked = masker(batch)
            start = time.perf_counter()
            passes(model, masked)
            timed("passes", start)
    batch_s, passes_s = (statistics.median(found[1:]) for found in seconds.values())
    figures = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "threads of arithmetic": torch.get_num_threads(),
        "preset": args.preset,
        "clips of a batch": args.batch,
        "synthetic batch: ms": round(1e3 * batch_s, 2),
        "forward and backward: ms": round(1e3 * passes_s, 1),
        "synthetic batch / passes: %": round(100 * batch_s / passes_s, 3),
    }
    publish("synthetic", "python -m benchmarks.train.synthetic", figures, args.output)


if __name__ == "__main__":
    main()
