"""What the tests of training read: a small drawn dataset of uneven sources."""

from collections.abc import Callable
from dataclasses import dataclass

from synthetic import DrawnTrack

from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.storage import Store

MakeConfig = Callable[..., Config]

TRACKS = [
    DrawnTrack("a.mp4", train=(64, 64, 40), val=(32, 32)),
    DrawnTrack("b.mp4", train=(64, 64, 64, 64, 64), val=(64,)),
    DrawnTrack("b.mp4", train=(32, 40), val=(), track=1),
    DrawnTrack("c.mp4", train=(48, 64), val=(40,)),
    DrawnTrack("d.mp4", train=(64, 64, 64), val=(32,)),
    DrawnTrack("e.mp4", train=(64, 64, 64, 33), val=(64,)),
]


@dataclass(frozen=True)
class Drawn:
    """A dataset and the store that holds it."""

    dataset: Dataset
    store: Store
