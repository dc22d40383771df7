"""How steady crops are: our smoothed tracks against a detector that looks at every frame alone.

    python -m benchmarks.faces.jitter [VIDEO...] [--out benchmarks/faces/results]

Jitter is the mean absolute second difference in time of the square's centre (both coordinates) and of its side, in
thousandths of the face's median side. So that smoothing can't win by lagging behind, the overlap (IoU) of the two
squares is given too, and the delay in frames at which our centre agrees best with the detector's.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import publish
from pipeline.assets import pull_samples
from pipeline.config.schema import PreprocessConfig
from preprocess.arrays import Floats
from preprocess.decode.video import probe, read_frames
from preprocess.faces.boxes import smooth_squares, track_boxes
from preprocess.faces.geometry import iou, squares
from preprocess.faces.track import Track
from preprocess.faces.tracker import Tracker
from preprocess.models import Networks, load_networks, model_files

SAMPLES = ("WolfgangLanger_Pexels", "single_face", "face_noface", "noface_face", "carphone_pristine")
LAGS = range(-5, 6)


def jitter(path: Floats) -> dict[str, float]:
    """Mean absolute second difference of centre and side of squares (n, 3), in thousandths of the median side."""
    change = np.abs(np.diff(path, 2, axis=0)) / np.median(path[:, 2]) * 1000
    return {"centre": float(change[:, :2].mean()), "side": float(change[:, 2].mean())}


def measure(file: Path, networks: Networks, cfg: PreprocessConfig) -> dict[str, Any] | None:
    """Both squares of the longest track of a video, compared over the frames where the detector sees it."""
    tracker = Tracker(networks.detector, networks.mesh, cfg.detect_every)
    every_frame = []
    for frame in read_frames(file):
        tracker.update(frame.index, frame.rgb)
        every_frame.append([face.box for face in networks.detector(frame.rgb)])
    tracks = tracker.finish()
    if not tracks:
        return None
    track = max(tracks, key=lambda one: one.end - one.start)
    ours = smooth_squares(track_boxes(track), probe(file).fps)
    alone, rows = _detections(track, ours, every_frame)
    # Differences only make sense over consecutive frames.
    first, last = _longest(rows)
    ours, raw, alone = ours[first:last], squares(track_boxes(track))[first:last], alone[first:last]
    paths = {"detector": alone, "tracked": raw, "smooth": ours}
    overlap = [iou(_box(a), _box(b)) for a, b in zip(ours, alone, strict=True)]
    return {
        "video": file.name,
        "frames": last - first,
        "undetected": len(rows) - int(rows.sum()),
        "side": round(float(np.median(ours[:, 2])), 1),
        **{f"{name}_{part}": round(value, 3) for name, path in paths.items() for part, value in jitter(path).items()},
        "iou_mean": round(float(np.mean(overlap)), 4),
        "iou_p05": round(float(np.percentile(overlap, 5)), 4),
        "lag": _lag(ours, alone),
    }


def _detections(track: Track, ours: Floats, every_frame: list[list[Floats]]) -> tuple[Floats, "np.ndarray[Any, Any]"]:
    """The detector's square (n, 3) nearest to ours in each frame of a track, and where there is one."""
    alone, there = np.full_like(ours, np.nan), np.zeros(len(ours), bool)
    for row, own in enumerate(ours):
        faces = [box for box in every_frame[track.start + row] if iou(box, _box(own)) > 0]
        if faces:
            alone[row] = squares(np.stack([max(faces, key=lambda box: iou(box, _box(own)))]))[0]
            there[row] = True
    return alone, there


def _longest(rows: "np.ndarray[Any, Any]") -> tuple[int, int]:
    edges = np.flatnonzero(np.diff(np.r_[0, rows.astype(int), 0]))
    spans = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    return max(spans, key=lambda span: span[1] - span[0])


def _lag(ours: Floats, alone: Floats) -> int:
    """Frames by which our centre comes late (or early, below 0) after the detector's."""
    edge = max(LAGS)
    middle = alone[edge : len(alone) - edge, :2]
    errors = [float(np.abs(ours[edge + lag : len(ours) - edge + lag, :2] - middle).mean()) for lag in LAGS]
    return LAGS[int(np.argmin(errors))]


def _box(square: Floats) -> Floats:
    x, y, side = square
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def main() -> None:
    """Prints a table; writes the result where -o says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    cfg = PreprocessConfig()
    networks = load_networks(cfg, model_files(cfg))
    pinned = pull_samples(progress=False)
    files = given.videos or [pinned[name] for name in SAMPLES]
    results = [found for file in files if (found := measure(file, networks, cfg))]
    print(f"{'video':28}{'frames':>7}{'side':>6}  centre: {'detector':>8}{'tracked':>9}{'smooth':>8}", end="")
    print(f"  side: {'detector':>8}{'tracked':>9}{'smooth':>8}{'IoU':>7}{'p5':>6}{'lag':>5}")
    for row in results:
        print(f"{row['video'][:26]:28}{row['frames']:7d}{row['side']:6.0f}", end="          ")
        print(f"{row['detector_centre']:8.2f}{row['tracked_centre']:9.2f}{row['smooth_centre']:8.2f}", end="        ")
        print(f"{row['detector_side']:8.2f}{row['tracked_side']:9.2f}{row['smooth_side']:8.2f}", end="")
        print(f"{row['iou_mean']:7.3f}{row['iou_p05']:6.2f}{row['lag']:5d}")
    figures = {row.pop("video"): row for row in results}
    publish("jitter", "python -m benchmarks.faces.jitter", figures, given.out)


if __name__ == "__main__":
    main()
