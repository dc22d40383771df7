"""Clips a second and core of the loader, beside four other ways to store and decode the same frames of real faces.

    python -m benchmarks.train.loader -o benchmarks/train/results

Every side has one core, shared by all its threads, and ends with a batch of float clips and their masks. Rounds
alternate, so a busy machine hits all. torchcodec is compared where it is installed; it needs FFmpeg's libraries.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.results import publish
from benchmarks.train import faces as layouts
from benchmarks.train import peers

BATCH, BATCHES, WARM, MEASURED = 16, 6, 2, 6
TARGETS = {
    "official layout": 3.0,
    "webdataset": 0.95,
    "webdataset, our shards": 0.95,
    "H.264, PyAV": 1.1,
    "H.264, torchcodec": 1.1,
}
OURS = "ours, DALI"


def rate(batches: peers.Batches) -> tuple[float, float]:
    """Clips a second of CPU time, and of wall time."""
    for _ in range(WARM):
        next(batches)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(MEASURED):
        clips_BCTHW, mask_BN = next(batches)
        if len(clips_BCTHW) != BATCH or len(mask_BN) != BATCH:
            raise RuntimeError(f"a batch of {len(clips_BCTHW)} clips and {len(mask_BN)} masks")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    batches.close()
    return MEASURED * BATCH / cpu, MEASURED * BATCH / wall


def sides(faces: layouts.Faces, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and maker of the batches of each side."""
    official, packed, videos = folder / "official", folder / "packed.tar", folder / "videos-h264"
    layouts.write_official(faces, official)
    layouts.write_packed(faces, packed)
    layouts.write_videos(faces, videos)
    yield OURS, lambda: peers.ours(faces, "dali")
    yield "ours, OpenCV", lambda: peers.ours(faces, "opencv")
    yield "official layout", lambda: peers.official(faces, official)
    yield "webdataset", lambda: peers.webdataset_packed(faces, packed)
    yield "webdataset, our shards", lambda: peers.webdataset_shards(faces)
    yield "H.264, PyAV", lambda: peers.pyav(faces, videos)
    try:
        peers.torchcodec(faces, videos)
    except (ImportError, RuntimeError) as error:
        print(f"H.264, torchcodec: not run: {str(error).splitlines()[0]}")
    else:
        yield "H.264, torchcodec", lambda: peers.torchcodec(faces, videos)


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the clips here, for the next time")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="marlin-bench-") as temporary:
        folder = args.folder or Path(temporary)
        faces = layouts.make_faces(folder, batch=BATCH, batches=BATCHES, data={"threads": 1})
        makers = dict(sides(faces, folder))
        rounds: list[dict[str, tuple[float, float]]] = []
        for _ in range(args.rounds):
            rounds.append({name: rate(make()) for name, make in makers.items()})
            print({name: round(cpu, 1) for name, (cpu, _) in rounds[-1].items()}, flush=True)
        sizes = layouts.layout_bytes(faces, folder / "official", folder / "packed.tar", folder / "videos-h264")
    figures: dict[str, Any] = {"clips": len(faces.clips), "batch": BATCH, "rounds": args.rounds}
    for name in makers:
        for index, clock in enumerate(("CPU", "wall")):
            figures[f"{name}: clips per {clock} second"] = round(
                statistics.median(row[name][index] for row in rounds), 1
            )
    for name, target in TARGETS.items():
        if name not in makers:
            figures[f"ours / {name}"] = "not run"
            continue
        ratios = [row[OURS][0] / row[name][0] for row in rounds]
        figures[f"ours / {name}"] = round(statistics.median(ratios), 2)
        figures[f"ours / {name} (all rounds)"] = [round(ratio, 2) for ratio in ratios]
        figures[f"ours / {name} (target)"] = target
    figures |= {f"{name}: bytes a clip": size for name, size in sizes.items()}
    publish("loader", "python -m benchmarks.train.loader", figures, args.output)


if __name__ == "__main__":
    main()
