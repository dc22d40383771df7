"""Bytes of a dataset a second of face video, beside the label maps that the official implementation stores.

    python -m benchmarks.preprocess.size

The official layout has one .npy a frame with a 64-bit label for each of 224x224 pixels; its pictures are not even
counted here, so that the comparison is in its favour. Ours counts everything: pictures, label maps, tags, records, tar
headers, manifests.
"""

import argparse
import io
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.preprocess.corpus import make_config, make_corpus
from benchmarks.results import publish
from pipeline.dataset import load_dataset
from pipeline.layout import dataset_store
from preprocess.stage import run_preprocess

FPS = 30


def official_bytes_a_frame(size: int) -> int:
    """A label map as `numpy.save` of 64-bit integers."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((size, size), np.int64))
    return len(buffer.getvalue())


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marlin-bench-") as folder:
        cfg = make_config(make_corpus(Path(folder, "in"), 1), Path(folder, "out"))
        run_preprocess(cfg, progress=False)
        store = dataset_store(cfg)
        dataset = load_dataset(store)
        stored = sum(item.size for item in store.list())
    frames = sum(sample.frames for sample in dataset.samples)
    parts: Counter[str] = Counter()
    for sample in dataset.samples:
        for name, (_, length) in sample.parts.items():
            parts[Path(name).suffix.lstrip(".") or name] += length
    official = official_bytes_a_frame(cfg.preprocess.size)
    figures = {
        "face frames": frames,
        f"ours: kB a second at {FPS} fps": round(FPS * stored / frames / 1e3, 1),
        f"official label maps alone: kB a second at {FPS} fps": round(FPS * official / 1e3, 1),
        "official / ours": round(official * frames / stored, 1),
        **{f"ours, {part}: bytes a frame": round(size / frames) for part, size in sorted(parts.items())},
        "ours, all: bytes a frame": round(stored / frames),
    }
    publish("preprocess-size", "python -m benchmarks.preprocess.size", figures, args.output)


if __name__ == "__main__":
    main()
