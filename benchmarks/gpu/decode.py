"""Clips a second of `mixed` and of `cpu` decoding over threads, and how far that feeds a trainer.

    python -m benchmarks.gpu.decode -o benchmarks/gpu/results

Needs the sample videos (`marlin samples pull`, `marlin models pull`) and, for all but the CPU's half, an NVIDIA GPU.
With a GPU the clips end there, as in training; without one they end in memory and `mixed` is reported as not run.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.results import publish
from benchmarks.train.faces import Faces, make_faces
from pipeline.config.schema import Config
from train.data.loader import open_loader

BATCH, WARM = 16, 4
DEMAND = {"A6000": 250, "H200": 1600}
"""Clips a second that a trainer of MARLIN's ViT-B takes at 40% utilisation."""
_SCALED = 0.9
NOT_RUN = "not run: this machine has no GPU"


def with_data(cfg: Config, **data: Any) -> Config:
    """The configuration with other loading."""
    return cfg.model_copy(update={"data": cfg.data.model_copy(update=data)})


def rate(faces: Faces, device: torch.device, batches: int, **data: Any) -> float:
    """Clips a second of the loader."""
    place = {"split": "train", "rank": 0, "world": 1, "device": device}
    with open_loader(with_data(faces.cfg, **data), faces.dataset, faces.store, **place) as loader:
        for _ in islice(loader, WARM):
            pass
        _wait(device)
        start = time.perf_counter()
        for _ in islice(loader, batches):
            pass
        _wait(device)
        return batches * BATCH / (time.perf_counter() - start)


def pixels(faces: Faces, device: torch.device, decode_device: str) -> Tensor:
    """Some clips in grey levels."""
    place = {"split": "train", "rank": 0, "world": 1, "device": device}
    cfg = with_data(faces.cfg, decode_device=decode_device)
    with open_loader(cfg, faces.dataset, faces.store, **place) as loader:
        return torch.cat([batch.clips_BCTHW.cpu() for batch in islice(loader, 2)]) * 255


def difference(faces: Faces, device: torch.device) -> dict[str, float]:
    """Mean, 99.9th percentile and largest difference of `mixed` pixels from those of `cpu`, in grey levels."""
    apart = (pixels(faces, device, "mixed") - pixels(faces, torch.device("cpu"), "cpu")).abs().flatten()
    high = apart.kthvalue(int(0.999 * len(apart))).values
    return {"mean": round(float(apart.mean()), 4), "99.9%": round(float(high), 2), "max": round(float(apart.max()), 2)}


def scaling(rates: Mapping[int, float]) -> dict[str, Any]:
    """The rates by threads, from where on more threads gain less than a tenth, and the share of each demand met."""
    best, most = max(rates.values()), max(rates)
    enough = min(threads for threads, found in rates.items() if found >= _SCALED * best)
    return {
        "clips per second by threads": {str(threads): round(found, 1) for threads, found in rates.items()},
        "stops scaling at": f"{enough} threads" if enough < most else f"not up to {most} threads",
        **{f"share of {name} ({clips}/s)": round(best / clips, 3) for name, clips in DEMAND.items()},
    }


def thread_counts(most: int) -> list[int]:
    """Powers of two up to `most`, and `most`."""
    return sorted({1 << power for power in range(most.bit_length()) if 1 << power <= most} | {most})


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="most threads (default: all)")
    parser.add_argument("--batches", type=int, default=20, help="batches of 16 clips for each figure")
    parser.add_argument("--folder", type=Path, help="keep the clips here, for the next time")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    torch.set_num_threads(1)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    figures: dict[str, Any] = {"device of the clips": torch.cuda.get_device_name(device) if gpu else "CPU"}
    with tempfile.TemporaryDirectory(prefix="marlin-bench-") as temporary:
        faces = make_faces(args.folder or Path(temporary), batch=BATCH, batches=1, data={})
        for decode_device in ("cpu", "mixed"):
            if decode_device == "mixed" and not gpu:
                figures["mixed"] = NOT_RUN
                continue
            rates = {
                threads: rate(faces, device, args.batches, threads=threads, decode_device=decode_device)
                for threads in thread_counts(args.threads)
            }
            figures |= {f"{decode_device}: {name}": value for name, value in scaling(rates).items()}
        figures["mixed against cpu, grey levels"] = difference(faces, device) if gpu else NOT_RUN
    publish("decode", "python -m benchmarks.gpu.decode", figures, args.output)


if __name__ == "__main__":
    main()
