"""Labelled datasets whose labels can be seen: bright pictures stand for yes, dark ones for no."""

from collections.abc import Callable, Mapping
from typing import Any

from synthetic import DrawnTrack, write_dataset

from pipeline.storage import Store

SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "attributes": {
        "appearance": {"type": "binary", "names": ["young", "male"]},
        "action": {"type": "binary", "names": ["smile"]},
    },
    "emotion": {"emotion": {"type": "real", "range": [0, 3], "names": ["happy", "sad"]}},
    "sentiment7": {"sentiment": {"type": "real", "range": [-3, 3]}},
    "deepfake": {
        "fake": {"type": "class", "names": ["real", "fake"]},
        "method": {"type": "class", "names": ["original", "Deepfakes", "Face2Face"]},
    },
}
SCHEMAS = {**SCHEMAS, "sentiment2": SCHEMAS["sentiment7"]}

LABELS: Mapping[str, Callable[[int], Mapping[str, Any]]] = {
    "attributes": lambda yes: {"appearance": [yes, 1 - yes], "action": [yes]},
    "emotion": lambda yes: {"emotion": [1.5 * yes, 2.0 * (1 - yes)]},
    "sentiment7": lambda yes: {"sentiment": 2.2 if yes else -1.7},
    "sentiment2": lambda yes: {"sentiment": 0.4 if yes else -1.7},
    "deepfake": lambda yes: {"fake": "fake" if yes else "real", "method": "Deepfakes" if yes else "original"},
}


def tracks(question: str, train: int = 16, val: int = 4, test: int = 8, frames: int = 32) -> list[DrawnTrack]:
    """Videos, every second one with yes for an answer."""
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    return [
        DrawnTrack(
            f"{split}-{number:03d}.mp4",
            **{**dict.fromkeys(("train", "val", "test"), ()), split: (frames,)},
            labels=LABELS[question](number % 2),
            mark=255 * (number % 2),
        )
        for number, split in enumerate(splits)
    ]


def write_labelled(store: Store, question: str, **counts: int) -> str:
    """Write such a dataset at the size of `drawn_runs.small_config`; returns its identity."""
    return write_dataset(store, tracks(question, **counts), labels=SCHEMAS[question])
