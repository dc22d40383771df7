"""What the tests of training read: a small drawn dataset of uneven sources."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from synthetic import DrawnTrack, write_dataset

from pipeline.config.schema import Config
from pipeline.dataset import Dataset, load_dataset
from pipeline.storage import Store, open_store

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


def drawn_unparsed(folder: Path) -> Drawn:
    """The drawn dataset with parsing failed in the first half of every sample: their grids are zero."""
    store = open_store(str(folder))
    write_dataset(store, TRACKS, size=32, patch=8, label_maps=False)
    dataset = load_dataset(store)
    for sample in dataset.samples:
        offset, length = sample.parts["regions.npy"]
        with (folder / sample.shard).open("r+b") as shard:
            shard.seek(offset + length - sample.frames * 16)
            shard.write(bytes(sample.frames // 2 * 16))
    return Drawn(dataset, store)
