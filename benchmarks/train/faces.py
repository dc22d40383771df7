"""Real face clips for the loader's benchmarks: a dataset of the sample videos, and the same clips in other layouts."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import webdataset as wds
from numpy.typing import NDArray

from benchmarks.preprocess.corpus import make_config, make_corpus
from pipeline.config.schema import Config
from pipeline.dataset import Dataset, load_dataset
from pipeline.layout import dataset_store
from pipeline.storage import Store
from preprocess.stage import run_preprocess
from train.data.access import LocalShards
from train.data.plan import Clip, TrainPlan
from train.data.shards import ShardReader
from train.sizes import TUBELET

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Faces:
    """A dataset, and the first clips that a run over it reads."""

    cfg: Config
    dataset: Dataset
    store: Store
    clips: Sequence[Clip]

    def reader(self) -> ShardReader:
        """Access to the bytes of the clips."""
        return ShardReader(self.dataset, LocalShards(self.store, self.dataset.shards))


def make_faces(folder: Path, *, batch: int, batches: int, data: dict[str, Any]) -> Faces:
    """Preprocess the sample videos into `folder`, unless that is done; a run reads `batches` batches of its clips."""
    corpus = folder / "videos"
    base = make_config(corpus if corpus.exists() else make_corpus(corpus, 1), folder / "storage", workers=1)
    store = dataset_store(base)
    if not store.exists("dataset.json"):
        run_preprocess(base, progress=False)
    raw = base.model_dump()
    raw["data"] |= data
    raw["train"] |= {"global_batch": batch, "micro_batch": batch}
    cfg, dataset = Config.model_validate(raw), load_dataset(store)
    plan = TrainPlan(cfg, dataset, "train")
    return Faces(cfg, dataset, store, [clip for step in range(batches) for clip in plan.step(step)])


def write_official(faces: Faces, folder: Path) -> None:
    """A JPEG file a frame, and beside it a label map of 64-bit integers as .npy, as the official code stores them."""
    if folder.exists():
        return
    reader = faces.reader()
    for sample in {clip.sample.key: clip.sample for clip in faces.clips}.values():
        place = folder / sample.key
        place.mkdir(parents=True)
        stacked = cv2.imdecode(np.frombuffer(reader.part(sample, "labels.png"), np.uint8), cv2.IMREAD_GRAYSCALE)
        labels = stacked.reshape(sample.frames, -1, stacked.shape[1])
        for frame in range(sample.frames):
            (place / f"{frame:03d}.jpg").write_bytes(reader.part(sample, f"{frame:03d}.jpg"))
            np.save(place / f"{frame:03d}.npy", labels[frame].astype(np.int64))


def write_packed(faces: Faces, path: Path) -> None:
    """One WebDataset shard that holds the frames and regions of the clips and nothing else, in the order of reading."""
    if path.exists():
        return
    reader, data = faces.reader(), faces.cfg.data
    with wds.TarWriter(str(path), mtime=0.0) as writer:
        for index, clip in enumerate(faces.clips):
            frames = clip.frames(data)
            parts = {
                f"{place:03d}.jpg": image.tobytes() for place, image in enumerate(reader.jpegs(clip.sample, frames))
            }
            writer.write({"__key__": f"{index:06d}", **parts, "regions.npy": _npy(_regions(reader, clip, frames))})


def write_videos(faces: Faces, folder: Path) -> None:
    """An H.264 file a clip, constant quality 18, with the clip's frames and no other; its regions beside it."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    reader = faces.reader()
    for index, clip in enumerate(faces.clips):
        frames = clip.frames(faces.cfg.data)
        (folder / f"{index:06d}.npy").write_bytes(_npy(_regions(reader, clip, frames)))
        with av.open(str(folder / f"{index:06d}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"crf": "18"})
            stream.width = stream.height = faces.cfg.preprocess.size
            stream.pix_fmt = "yuv420p"
            for image in reader.jpegs(clip.sample, frames):
                rgb = cv2.imdecode(image, cv2.IMREAD_COLOR_RGB)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
            container.mux(stream.encode())


def layout_bytes(faces: Faces, official: Path, packed: Path, videos: Path) -> dict[str, int]:
    """Bytes that a clip takes in each layout, its share of headers and padding included."""
    data = faces.cfg.data
    ours = [
        sum(clip.sample.parts[f"{frame:03d}.jpg"][1] for frame in clip.frames(data))
        + clip.sample.parts["regions.npy"][1]
        for clip in faces.clips
    ]
    files = [
        (official / clip.sample.key / f"{frame:03d}.{kind}").stat().st_size
        for clip in faces.clips
        for kind, frames in (("jpg", clip.frames(data)), ("npy", clip.frames(data)[::TUBELET]))
        for frame in frames
    ]
    count = len(faces.clips)
    return {
        "ours": sum(ours) // count,
        "official": sum(files) // count,
        "webdataset": packed.stat().st_size // count,
        "H.264": sum(path.stat().st_size for path in videos.iterdir()) // count,
    }


def _regions(reader: ShardReader, clip: Clip, frames: range) -> Image:
    return reader.regions(clip.sample)[frames[::TUBELET]]


def _npy(array: Image) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
