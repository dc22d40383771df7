"""Windows a second of features on one NVIDIA GPU, and how long its encoder waits for frames.

    python -m benchmarks.gpu.features -o benchmarks/gpu/results

Cropped videos go the way of `marlin features --cropped` from files to features, in bf16 and in fp32. Beside it stand
the encoder alone, on windows that are there already, and the share of the whole way's time in which the encoder worked:
near 1, it is the limit, and not decoding.
"""

import argparse
import shutil
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.results import publish
from eval.extract import features_of
from eval.features import Embedder, WindowSpec, model_embedder
from pipeline.config.load import load_config
from tests.drawn_videos import write_video
from train.export import model_of

SIDE, CELLS = 224, 28
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def make_videos(folder: Path, count: int, frames: int) -> list[str]:
    """So many copies of a video of coloured cells that change slowly."""
    rng = np.random.default_rng(0)
    key_frames = rng.integers(0, 255, (frames // 25 + 2, CELLS, CELLS, 3)).astype(np.float32)
    weights = np.linspace(0, 1, 25, endpoint=False, dtype=np.float32)[:, None, None, None]
    cells = np.concatenate([a * (1 - weights) + b * weights for a, b in pairwise(key_frames)])[:frames].astype(np.uint8)
    first = write_video(folder / "0.mp4", cells.repeat(SIDE // CELLS, axis=1).repeat(SIDE // CELLS, axis=2))
    copies = [folder / f"{number}.mp4" for number in range(1, count)]
    for copy in copies:
        shutil.copy(first, copy)
    return [str(first), *map(str, copies)]


class Timed:
    """An embedder that notes how long it works, from the first batch on: processes that decode start slowly."""

    def __init__(self, embed: Embedder) -> None:
        self._embed = embed
        self._start = 0.0
        self.seconds, self.windows = 0.0, 0

    def __call__(self, frames_BTHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        start = time.perf_counter()
        self._start = self._start or start
        found = self._embed(frames_BTHWC)  # waits for the device: the features are on the host
        self.seconds += time.perf_counter() - start
        self.windows += len(frames_BTHWC)
        return found

    @property
    def whole(self) -> float:
        """Seconds since the first batch."""
        return time.perf_counter() - self._start


def measure(size: str, precision: str, videos: list[str], batch: int) -> dict[str, Any]:
    """Rates of the whole way and of the encoder alone."""
    cfg = load_config(f"ytf-vit-{size}", ["storage.root=/nowhere"])
    embed = model_embedder(model_of(cfg), DTYPES[precision])
    frames = np.random.default_rng(0).integers(0, 255, (batch, cfg.data.frames, SIDE, SIDE, 3)).astype(np.uint8)
    for _ in range(3):
        embed(frames)
    alone = Timed(embed)
    for _ in range(20):
        alone(frames)
    spec, timed = WindowSpec(cfg.data.frames, cfg.data.stride, 16 * cfg.data.stride, batch), Timed(embed)
    features_of(videos, None, cfg.preprocess, timed, spec, progress=False)
    whole = timed.whole
    return {
        "windows/s": round(timed.windows / whole, 1),
        "encoder alone, windows/s": round(alone.windows / alone.seconds, 1),
        "share of the time in the encoder": round(timed.seconds / whole, 3),
    }


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["small", "base", "large"], help="model sizes (default: all)")
    parser.add_argument("--videos", type=int, default=64, help="how many (default: 64)")
    parser.add_argument("--frames", type=int, default=500, help="of each (default: 500)")
    parser.add_argument("--batch", type=int, default=8, help="windows at once (default: 8)")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no NVIDIA GPU answers: benchmarks.eval.features measures features on a CPU")
    figures: dict[str, Any] = {"gpu": torch.cuda.get_device_name(0), "batch": args.batch}
    with tempfile.TemporaryDirectory(prefix="marlin-features-") as folder:
        videos = make_videos(Path(folder), args.videos, args.frames)
        for size in args.sizes:
            for precision in DTYPES:
                found = measure(size, precision, videos, args.batch)
                figures |= {f"ViT-{size}, {precision}: {name}": value for name, value in found.items()}
    publish("features", "python -m benchmarks.gpu.features", figures, args.output)


if __name__ == "__main__":
    main()
