"""Byte ranges of samples out of shards, and the regions among them."""

import io
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.dataset import REMAKE, Dataset, Sample
from pipeline.errors import MarlinError
from pipeline.storage import ReadStore
from pipeline.storage.atomic import os_error
from train.data.cache import NodeCache

UInt8s = NDArray[np.uint8]

_OPEN_FILES = 128
_KNOWN_HEADERS = 8
_SCAN = 0xDA
_END = b"\xff\xd9"
_REGIONS = "regions.npy"


class ShardReader:
    """Reads parts of samples from local shards, or from local copies of remote ones; for any number of threads."""

    def __init__(self, dataset: Dataset, store: ReadStore, cache: NodeCache) -> None:
        self._dataset = dataset
        self._store = store
        self._cache = cache
        self._size: int = dataset.info["size"]
        self._headers: tuple[bytes, ...] = ()
        self._files: OrderedDict[str, int] = OrderedDict()
        self._lock = Lock()

    def part(self, sample: Sample, name: str) -> bytes:
        """The bytes of one part of a sample.

        Raises:
            MarlinError: the sample has no such part, or its shard is missing or damaged.
        """
        offset, length = self._span(sample, name)
        return self._read(sample, offset, length)

    def jpegs(self, sample: Sample, frames: Sequence[int]) -> list[UInt8s]:
        """The JPEG bytes of some frames, safe to decode, fetched at once: parts of a sample lie side by side.

        Raises:
            MarlinError: they are missing, or no whole JPEGs of the dataset's size.
        """
        names = [f"{frame:03d}.jpg" for frame in frames]
        spans = [self._span(sample, name) for name in names]
        begin = min(offset for offset, _ in spans)
        data = self._read(sample, begin, max(offset + length for offset, length in spans) - begin)
        pixels = np.frombuffer(data, dtype=np.uint8)
        images = []
        for name, (offset, length) in zip(names, spans, strict=True):
            start, stop = offset - begin, offset - begin + length
            # An encoder gives all frames of one size the same header, so this is nearly always enough.
            if not (data.startswith(self._headers, start, stop) and data.endswith(_END, start, stop)):
                self._check_jpeg(sample, name, data[start:stop])
            images.append(pixels[start:stop])
        return images

    def regions(self, sample: Sample) -> UInt8s:
        """Region bitmasks (frames, grid, grid) of a sample.

        Raises:
            MarlinError: they are missing, unreadable or of another shape.
        """
        return _parse_regions(self._dataset.url, sample, self.part(sample, _REGIONS))

    def damaged(self, sample: Sample, detail: str) -> MarlinError:
        """The error for a sample whose bytes are wrong."""
        return _damaged(self._dataset.url, sample, detail)

    def close(self) -> None:
        """Close all files."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _check_jpeg(self, sample: Sample, name: str, data: bytes) -> None:
        header = jpeg_header(data)
        # A damaged header makes DALI 2.4 write out of bounds; OpenCV refuses it.
        if header is None or not self._decodes(data):
            raise self.damaged(sample, f"{name} is no JPEG of {self._size}×{self._size} pixels")
        self._headers = (header, *self._headers[: _KNOWN_HEADERS - 1])

    def _decodes(self, data: bytes) -> bool:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
        return pixels is not None and pixels.shape[:2] == (self._size, self._size)

    def _span(self, sample: Sample, name: str) -> tuple[int, int]:
        if name not in sample.parts:
            raise MarlinError(f"sample {sample.key} of {self._dataset.url} has no part {name}: {REMAKE}")
        return sample.parts[name]

    def _read(self, sample: Sample, offset: int, length: int) -> bytes:
        file = self._file(sample.shard)
        # pread and not mmap: a failing disk is an error here, and would be a signal there.
        try:
            data = os.pread(file, length, offset)
        except OSError as error:
            raise os_error(f"{self._dataset.url}/{sample.shard}", error) from None
        finally:
            os.close(file)
        if len(data) != length:
            raise self.damaged(sample, f"it ends inside the bytes {offset} to {offset + length}")
        return data

    def _file(self, shard: str) -> int:
        """A descriptor of a shard for the caller to close: another thread may push the shard out meanwhile."""
        with self._lock:
            if shard in self._files:
                self._files.move_to_end(shard)
                return os.dup(self._files[shard])
        entry = self._dataset.shards[shard]
        # Without the lock: the copy of a remote shard may take minutes to arrive.
        path = self._store.local_path(shard) or self._cache.path(self._store, entry)
        file = _open(path, entry.size)
        with self._lock:
            if shard not in self._files:
                self._files[shard] = os.dup(file)
            if len(self._files) > _OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
        return file


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


def _damaged(url: str, sample: Sample, detail: str) -> MarlinError:
    return MarlinError(
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


def _open(path: Path, size: int) -> int:
    file = os.open(path, os.O_RDONLY)
    if (found := os.fstat(file).st_size) != size:
        os.close(file)
        raise MarlinError(f"{path} has {found} bytes, the dataset lists {size}: restore it, or {REMAKE}")
    return file
