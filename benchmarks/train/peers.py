"""What others would load the same clips with: each gives batches of float clips (B, C, T, H, W) and masks, endlessly.

All but the official layout decode into one tensor that is used again for every batch, are given their region grids
ready-made, and mask with our own code: what is compared is how frames are stored and decoded.
"""

import io
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
import webdataset as wds
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.train.faces import Faces
from train.data.loader import open_loader
from train.data.plan import Clip
from train.hashing import signed
from train.masking import make_mask
from train.sizes import CHANNELS, TUBELET

Image = NDArray[np.uint8]
Batches = Generator[tuple[Tensor, Tensor], None, None]
_BACKGROUND, _SKIN, _PARTS = 0, 1, (2, 3, 4, 5, 6)


def ours(faces: Faces, decoder: str) -> Batches:
    """This package's loader, and its masks."""
    cfg = faces.cfg.model_copy(update={"data": faces.cfg.data.model_copy(update={"decoder": decoder})})
    with open_loader(cfg, faces.dataset, faces.store, split="train", rank=0, world=1) as loader:
        for batch in loader:
            yield batch.clips_BCTHW, _mask(faces, batch.regions_BTHW, batch.hash_B)


class OfficialClips(Dataset[tuple[Tensor, Tensor]]):
    """Clips as the official dataset makes them: files of frames and label maps, a mask by max-pooling in a loop.

    As there, numpy scales the frames, so in 64 bits, and pooling ends with the region that makes a frame's share full.
    Eleven classes would be pooled there where seven regions are here.
    """

    def __init__(self, faces: Faces, folder: Path) -> None:
        self._clips = faces.clips
        self._data, self._size, self._patch = faces.cfg.data, faces.cfg.preprocess.size, faces.cfg.model.patch
        self._folder = folder

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        clip = self._clips[index]
        dice = np.random.default_rng(clip.hash)
        order = [_BACKGROUND, _SKIN, *dice.permutation(_PARTS)]
        clip_THWC, eligible = torch.zeros(self._data.frames, self._size, self._size, CHANNELS), []
        for place, number in enumerate(clip.frames(self._data)):
            path = self._folder / clip.sample.key / f"{number:03d}.jpg"
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            clip_THWC[place] = torch.from_numpy(image / 255)
            if place % TUBELET == 0:
                labels = torch.from_numpy(np.load(path.with_suffix(".npy")))
                eligible.append(self._eligible(labels, order).flatten())
        mask = torch.cat(eligible)
        keep = int(len(mask) * (1 - self._data.mask.ratio))
        allowed = mask.nonzero().flatten().numpy()
        mask[dice.choice(allowed, len(allowed) - keep, replace=False)] = False
        return clip_THWC.permute(3, 0, 1, 2), mask

    def _eligible(self, labels: Tensor, order: Sequence[int]) -> Tensor:
        side = len(labels) // self._patch
        found = torch.zeros(side, side)
        for region in order:
            touched = F.max_pool2d((labels == region).float()[None], self._patch)[0]
            found = torch.maximum(found, touched)
            if found.mean() >= 1 - self._data.mask.ratio:
                break
        return found.bool()


def official(faces: Faces, folder: Path) -> Batches:
    """The official layout in a PyTorch DataLoader."""
    loader = DataLoader(OfficialClips(faces, folder), faces.cfg.train.micro_batch)
    while True:
        yield from loader


def webdataset_packed(faces: Faces, shard: Path) -> Batches:
    """webdataset and OpenCV over a shard of nothing but these clips, read from begin to end."""

    def decode(sample: dict[str, Any]) -> tuple[Image, Image, int]:
        frames = [sample[f"{place:03d}.jpg"] for place in range(faces.cfg.data.frames)]
        return _opencv(frames), _regions(sample["regions.npy"]), int(sample["__key__"])

    samples = wds.WebDataset(str(shard), shardshuffle=False).repeat().map(decode)
    return _batches(faces, ((*found, faces.clips[index]) for *found, index in samples))


def webdataset_shards(faces: Faces) -> Batches:
    """webdataset and OpenCV over our own shards, the frames that a clip does not need left undecoded."""
    first: dict[str, Clip] = {}
    for clip in faces.clips:
        first.setdefault(clip.sample.key, clip)
    names = {key: [f"{frame:03d}.jpg" for frame in clip.frames(faces.cfg.data)] for key, clip in first.items()}
    wanted = {f"{key}.{name}" for key, own in names.items() for name in (*own, "regions.npy")}

    def decode(sample: dict[str, Any]) -> tuple[Image, Image, Clip]:
        clip = first[sample["__key__"]]
        frames = clip.frames(faces.cfg.data)
        regions = _regions(sample["regions.npy"])[frames[::TUBELET]]
        return _opencv([sample[name] for name in names[clip.sample.key]]), regions, clip

    shards = [str(faces.store.local_path(name)) for name in faces.dataset.shards]
    samples = wds.WebDataset(shards, shardshuffle=False, select_files=wanted.__contains__).repeat().map(decode)
    return _batches(faces, samples)


def pyav(faces: Faces, folder: Path) -> Batches:
    """H.264 clips, decoded by PyAV."""

    def decode(path: Path) -> list[Image]:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]

    return _video_batches(faces, folder, decode)


def torchcodec(faces: Faces, folder: Path) -> Batches:
    """H.264 clips, decoded by torchcodec.

    Raises:
        ImportError: it is not installed, or finds no FFmpeg.
    """
    from torchcodec.decoders import VideoDecoder

    def decode(path: Path) -> Image:
        video = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="approximate")
        frames: Image = video.get_frames_in_range(0, faces.cfg.data.frames).data.numpy()
        return frames

    return _video_batches(faces, folder, decode)


def _video_batches(faces: Faces, folder: Path, decode: Callable[[Path], Iterable[Image]]) -> Batches:
    def read() -> Iterator[tuple[Iterable[Image], Image, Clip]]:
        for index, clip in cycle(enumerate(faces.clips)):
            yield decode(folder / f"{index:06d}.mp4"), _regions((folder / f"{index:06d}.npy").read_bytes()), clip

    return _batches(faces, read())


def _batches(faces: Faces, samples: Iterable[tuple[Iterable[Image], Image, Clip]]) -> Batches:
    data, size, batch = faces.cfg.data, faces.cfg.preprocess.size, faces.cfg.train.micro_batch
    clips_BCTHW = torch.empty(batch, CHANNELS, data.frames, size, size)
    waiting: list[tuple[Image, Clip]] = []
    for frames, regions, clip in samples:
        for place, frame_HWC in enumerate(frames):
            clips_BCTHW[len(waiting), :, place].copy_(torch.from_numpy(frame_HWC).permute(2, 0, 1))
        waiting.append((regions, clip))
        if len(waiting) == batch:
            regions_BTHW = torch.from_numpy(np.stack([regions for regions, _ in waiting]))
            hash_B = torch.tensor([signed(clip.hash) for _, clip in waiting])
            yield clips_BCTHW.mul_(1 / 255), _mask(faces, regions_BTHW, hash_B)
            waiting = []


def _mask(faces: Faces, regions_BTHW: Tensor, hash_B: Tensor) -> Tensor:
    mask = faces.cfg.data.mask
    return make_mask(mask.strategy, regions_BTHW.flatten(2), hash_B, ratio=mask.ratio, rounding=mask.rounding)


def _opencv(frames: Sequence[bytes]) -> list[Image]:
    return [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) for data in frames]


def _regions(data: bytes) -> Image:
    return np.load(io.BytesIO(data), allow_pickle=False)
