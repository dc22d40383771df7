"""Features of cropped videos against `marlin-pytorch`: the same weights, the same windows, alternating.

    python -m benchmarks.eval.features -o benchmarks/eval/results

A drawn video of 224×224 pixels; `extract_video` of the package, ours in fp32 and ours in bf16 take turns, decoding
included, on all cores.
"""

import argparse
import tempfile
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import publish
from benchmarks.turns import by_turns
from eval.features import Embedder, WindowSpec, model_embedder
from eval.videos import video_features
from pipeline.config.load import load_config
from preprocess.follow import video_clip, whole_picture
from tests.drawn_videos import write_video
from tests.published import published_network
from train.export import geometry_of, model_of
from train.interop import to_official
from train.sizes import SIZES

PEER = "marlin-pytorch"


def measure(size: str, video: Path, rounds: int, batch: int) -> dict[str, Any]:
    """Seconds of each side, and how far their features are apart."""
    cfg = load_config(f"ytf-vit-{size}", ["storage.root=/nowhere"])
    ours, networks = model_of(cfg), SIZES[cfg.model.size]
    theirs = published_network(networks.encoder, networks.decoder, geometry_of(cfg))
    theirs.load_state_dict(to_official(dict(ours.state_dict()), geometry_of(cfg)))
    spec = WindowSpec(cfg.data.frames, 2, 32, batch, official=True)
    preprocess = cfg.preprocess.model_copy(update={"fps": None})

    def extract(embed: Embedder) -> np.ndarray:
        clip = video_clip(video)
        [found] = video_features(clip, [whole_picture(clip, preprocess)], preprocess, embed, spec)
        return found.features_WD

    def peer() -> np.ndarray:
        return theirs.extract_video(str(video)).cpu().numpy()

    exact = partial(extract, model_embedder(deepcopy(ours)))
    rounded = partial(extract, model_embedder(ours, torch.bfloat16))
    figures: dict[str, Any] = {"windows": len(exact())}
    for name, side in (("fp32", exact), ("bf16", rounded)):
        found = by_turns({"ours": side, PEER: peer}, rounds)
        figures |= {f"{name}: {what}": value for what, value in found.items()}
    figures["bf16: least cosine"] = round(float(_cosines(rounded(), peer()).min()), 5)
    return figures


def _cosines(one_WD: np.ndarray, other_WD: np.ndarray) -> np.ndarray:
    return (one_WD * other_WD).sum(1) / np.linalg.norm(one_WD, axis=1) / np.linalg.norm(other_WD, axis=1)


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["small", "base"], choices=["small", "base", "large"])
    parser.add_argument("--frames", type=int, default=240, help="of the video (default: 240)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="windows at once (default: 8)")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    figures: dict[str, Any] = {"frames": args.frames, "batch": args.batch, "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory(prefix="marlin-features-") as folder:
        pictures = np.random.default_rng(0).integers(0, 255, (args.frames, 7, 7, 3)).astype(np.uint8)
        video = write_video(Path(folder) / "crop.mp4", pictures.repeat(32, axis=1).repeat(32, axis=2))
        for size in args.sizes:
            found = measure(size, video, args.rounds, args.batch)
            figures |= {f"ViT-{size}: {name}": value for name, value in found.items()}
    publish("features", "python -m benchmarks.eval.features", figures, args.output)


if __name__ == "__main__":
    main()
