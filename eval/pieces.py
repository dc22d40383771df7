"""Windows of many videos, read ahead of the encoder; by several processes where it is fast and nothing is looked for.

PyAV holds Python's lock while it decodes small pictures, so that threads would take turns.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from eval.features import BATCHES_AHEAD, WindowSpec, best_device
from eval.videos import window_batches
from pipeline.background import Background
from pipeline.config.schema import PreprocessConfig
from preprocess.faces.tracker import Detect, Fit
from preprocess.follow import FaceTrack, find_tracks, video_clip, whole_picture
from preprocess.quarantine import BadSource


@dataclass(frozen=True, eq=False)
class Windows:
    """A batch of windows (B, T, S, S, 3) of a video: all its faces, and the number of the one that each shows."""

    video: str
    tracks: Sequence[FaceTrack]
    owners: Sequence[int]
    frames_BTHWC: torch.Tensor


@dataclass(frozen=True)
class Fault:
    """Why a video can't be used; what came of it before does not count."""

    video: str
    reason: str


Piece = Windows | Fault


class FaceWindows(IterableDataset[Piece]):
    """The windows of the faces of some videos; each process of a `DataLoader` reads videos of its own.

    Args:
        videos: paths.
        networks: find the faces; None takes the whole picture for one.
        cfg: how faces are found and cut out.
        spec: the windows.
    """

    def __init__(
        self, videos: Sequence[str], networks: tuple[Detect, Fit] | None, cfg: PreprocessConfig, spec: WindowSpec
    ) -> None:
        self.videos, self.networks = videos, networks
        self._cfg, self._spec = cfg, spec

    def __iter__(self) -> Generator[Piece, None, None]:
        worker = get_worker_info()
        mine = self.videos[worker.id :: worker.num_workers] if worker else self.videos
        for video in mine:
            yield from self._pieces(video)

    def _pieces(self, video: str) -> Iterator[Piece]:
        clip, cfg = video_clip(Path(video)), self._cfg
        try:
            tracks = find_tracks(clip, cfg, *self.networks) if self.networks else [whole_picture(clip, cfg)]
            for owners, frames_BTHWC in window_batches(clip, tracks, cfg, self._spec):
                numbers = [track.number for track in owners]
                yield Windows(video, tracks, numbers, torch.from_numpy(frames_BTHWC))
        except (BadSource, av.FFmpegError) as bad:
            yield Fault(video, str(bad))


def read_pieces(source: FaceWindows) -> Generator[Piece, None, None]:
    """What a source gives, read ahead: the pieces of one video in order, those of several mixed."""
    processes = min(len(os.sched_getaffinity(0)), len(source.videos)) if best_device().type == "cuda" else 0
    if processes > 1 and source.networks is None:
        yield from DataLoader(source, batch_size=None, num_workers=processes, multiprocessing_context="spawn")
        return
    with closing(Background(iter(source), BATCHES_AHEAD)) as pieces:
        yield from pieces
