"""Byte ranges of samples out of shards, and the regions among them."""

import io
from collections.abc import Callable, Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.dataset import REMAKE, Dataset, Sample
from pipeline.errors import MarlinError
from pipeline.storage import ReadStore
from train.data.access import ShardAccess
from train.data.cache.ranges import Span

T = TypeVar("T")
UInt8s = NDArray[np.uint8]

_KNOWN_HEADERS = 8
_SCAN = 0xDA
_END = b"\xff\xd9"
_REGIONS = "regions.npy"


class DamagedSample(MarlinError):
    """The bytes of a sample are not what a dataset may hold."""


class ShardReader:
    """Reads parts of samples and checks them; for any number of threads.

    Attributes:
        size: side of the frames in pixels.
    """

    def __init__(self, dataset: Dataset, access: ShardAccess) -> None:
        self._dataset = dataset
        self._access = access
        self.size: int = dataset.info["size"]
        self._headers: tuple[bytes, ...] = ()

    def part(self, sample: Sample, name: str) -> bytes:
        """The bytes of one part of a sample.

        Raises:
            MarlinError: the sample has no such part, or its shard is missing or damaged.
        """
        offset, length = self._place(sample, name)
        return self._read(sample, offset, length)

    def jpegs(self, sample: Sample, frames: Sequence[int]) -> list[UInt8s]:
        """The JPEG bytes of some frames, safe to decode, fetched at once: parts of a sample lie side by side.

        Raises:
            MarlinError: they are missing, or no whole JPEGs of the dataset's size.
        """
        return self._twice(sample, lambda: self._jpegs(sample, frames))

    def regions(self, sample: Sample) -> UInt8s:
        """Region bitmasks (frames, grid, grid) of a sample.

        Raises:
            MarlinError: they are missing, unreadable or of another shape.
        """
        return self._twice(sample, lambda: _parse_regions(self._dataset.url, sample, self.part(sample, _REGIONS)))

    def _twice(self, sample: Sample, read: Callable[[], T]) -> T:
        """What `read` gives, at the second attempt where only a copy of the shard was damaged."""
        try:
            return read()
        except DamagedSample:
            if not self._access.recover(sample.shard):
                raise
        return read()

    def _jpegs(self, sample: Sample, frames: Sequence[int]) -> list[UInt8s]:
        names = [f"{frame:03d}.jpg" for frame in frames]
        places = [self._place(sample, name) for name in names]
        begin = min(offset for offset, _ in places)
        data = self._read(sample, begin, max(offset + length for offset, length in places) - begin)
        pixels = np.frombuffer(data, dtype=np.uint8)
        images = []
        for name, (offset, length) in zip(names, places, strict=True):
            start, stop = offset - begin, offset - begin + length
            # An encoder gives all frames of one size the same header, so this is nearly always enough.
            if not (data.startswith(self._headers, start, stop) and data.endswith(_END, start, stop)):
                self._check_jpeg(sample, name, data[start:stop])
            images.append(pixels[start:stop])
        return images

    def _check_jpeg(self, sample: Sample, name: str, data: bytes) -> None:
        header = jpeg_header(data)
        # A damaged header makes DALI 2.4 write out of bounds; OpenCV refuses it.
        if header is None or not self._decodes(data):
            raise _damaged(self._dataset.url, sample, f"{name} is no JPEG of {self.size}×{self.size} pixels")
        self._headers = (header, *self._headers[: _KNOWN_HEADERS - 1])

    def _decodes(self, data: bytes) -> bool:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
        return pixels is not None and pixels.shape[:2] == (self.size, self.size)

    def _place(self, sample: Sample, name: str) -> tuple[int, int]:
        if name not in sample.parts:
            raise MarlinError(f"sample {sample.key} of {self._dataset.url} has no part {name}: {REMAKE}")
        return sample.parts[name]

    def _read(self, sample: Sample, offset: int, length: int) -> bytes:
        data = self._access.read(Span(sample.shard, offset, length))
        if len(data) != length:
            raise _damaged(self._dataset.url, sample, f"it ends inside the bytes {offset} to {offset + length}")
        return data


def clip_spans(sample: Sample, frames: Sequence[int]) -> list[Span]:
    """What `ShardReader` reads of a sample for some of its frames and its regions; parts that are missing left out."""
    places = [sample.parts[name] for frame in frames if (name := f"{frame:03d}.jpg") in sample.parts]
    begin = min((offset for offset, _ in places), default=0)
    end = max((offset + length for offset, length in places), default=0)
    spans = [Span(sample.shard, begin, end - begin)] if places else []
    return [*spans, Span(sample.shard, *sample.parts[_REGIONS])] if _REGIONS in sample.parts else spans


def read_regions(store: ReadStore, sample: Sample) -> UInt8s:
    """Region bitmasks (frames, grid, grid) of a sample, without the rest of its shard.

    Raises:
        MarlinError: they are missing, unreadable or of another shape.
    """
    return _parse_regions(store.url, sample, store.read_range(sample.shard, *sample.parts[_REGIONS]))


def _parse_regions(url: str, sample: Sample, data: bytes) -> UInt8s:
    try:
        regions = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError):
        raise _damaged(url, sample, f"{_REGIONS} is no array") from None
    if not isinstance(regions, np.ndarray) or regions.dtype != np.uint8 or regions.ndim != 3:
        raise _damaged(url, sample, f"{_REGIONS} is no region grid")
    if len(regions) != sample.frames:
        raise _damaged(url, sample, f"{_REGIONS} has {len(regions)} frames, not {sample.frames}")
    return regions


def _damaged(url: str, sample: Sample, detail: str) -> DamagedSample:
    return DamagedSample(
        f"{url}/{sample.shard} is damaged at sample {sample.key}: {detail}; "
        f"`marlin dataset verify` lists all damage; restore the shard, or {REMAKE}"
    )


def jpeg_header(data: bytes) -> bytes | None:
    """The segments of a JPEG up to its first scan, or None if the bytes are not built as one, from begin to end."""
    if not data.startswith(b"\xff\xd8") or not data.endswith(_END):
        return None
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, place = data[place + 1], place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _SCAN:
            return data[:place]
    return None
