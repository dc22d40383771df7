"""The exported encoder in ONNX Runtime against PyTorch: agreement, size of the file, and latency, alternating.

    python -m benchmarks.eval.onnx -o benchmarks/eval/results

Networks of random weights and random clips of 16×224×224; both sides have as many threads.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import publish
from benchmarks.turns import by_turns
from pipeline.config.load import load_config
from train.export import model_of
from train.onnx_export import input_shape, open_onnx, run_onnx, write_onnx


def measure(size: str, folder: Path, rounds: int, batch: int) -> dict[str, Any]:
    """Seconds a call of each side, how far their features are apart, and the megabytes of the file."""
    model = model_of(load_config(f"ytf-vit-{size}", ["storage.root=/nowhere"])).eval()
    file = folder / f"{size}.onnx"
    write_onnx(file, model)
    session = open_onnx(file, torch.get_num_threads())
    clips = np.random.default_rng(0).random((batch, *input_shape(model.geometry)[1:]), np.float32)

    def encode() -> np.ndarray:
        with torch.inference_mode():
            return model.encode(torch.from_numpy(clips), pool=True).numpy()

    figures = by_turns({"ONNX Runtime": lambda: run_onnx(session, clips), "PyTorch": encode}, rounds)
    return figures | {"file, MB": round(file.stat().st_size / 1e6, 1)}


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["small"], choices=["small", "base", "large"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=1, help="clips at once (default: 1)")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    figures: dict[str, Any] = {"batch": args.batch, "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory(prefix="marlin-onnx-") as folder:
        for size in args.sizes:
            found = measure(size, Path(folder), args.rounds, args.batch)
            figures |= {f"ViT-{size}: {name}": value for name, value in found.items()}
    publish("onnx", "python -m benchmarks.eval.onnx", figures, args.output)


if __name__ == "__main__":
    main()
