"""What a dataset holds, in numbers for the report."""

import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.sequences import read_part
from pipeline.dataset import Dataset
from pipeline.storage import Store

_COVERAGE_SAMPLES = 64
_SUMMED = ("seconds", "frames", "tracks", "samples")


@dataclass(frozen=True)
class Coverage:
    """Share of a region among all patches (a patch counts with every region that touches it), and where it shows."""

    region: str
    share: float
    frames: float


@dataclass(frozen=True)
class HeldOut:
    """Videos and people with samples in split "val", and how many of each training has samples of too."""

    videos: int
    trained_videos: int
    people: int
    trained_people: int


@dataclass(frozen=True)
class Statistics:
    """Counts of a dataset; durations in seconds."""

    counts: dict[str, int]
    splits: dict[str, int]
    held_out: HeldOut
    video_seconds: float
    face_seconds: float
    sources: list[dict[str, Any]]
    dropped: dict[str, int]
    quarantine: dict[str, int]
    quarantined: list[dict[str, Any]]
    coverage: list[Coverage]
    coverage_samples: int


def dataset_statistics(dataset: Dataset, store: Store) -> Statistics:
    """Count what the manifests say, and measure region coverage on up to 64 samples spread evenly."""
    sources = _merge_spans([source for unit in dataset.units for source in unit["sources"]])
    rate = {source["source"]: float(source["fps"]) for source in sources}
    faces = sum(sample.frames / rate[sample.source] for sample in dataset.samples if rate.get(sample.source))
    dropped: Counter[str] = Counter()
    for source in sources:
        dropped.update(source["dropped"])
    coverage, measured = _coverage(dataset, store)
    return Statistics(
        counts=dict(dataset.info["counts"]),
        splits=dict(dataset.info["splits"]),
        held_out=_held_out(dataset),
        video_seconds=sum(float(source["seconds"]) for source in sources),
        face_seconds=faces,
        sources=sources,
        dropped=dict(dropped),
        quarantine=dict(dataset.info["quarantine"]),
        quarantined=[entry for unit in dataset.units for entry in unit["quarantined"]],
        coverage=coverage,
        coverage_samples=measured,
    )


def _held_out(dataset: Dataset) -> HeldOut:
    val, train = dataset.of_split("val"), dataset.of_split("train")
    videos, people = {sample.source for sample in val}, {sample.identity for sample in val}
    trained_videos, trained_people = {sample.source for sample in train}, {sample.identity for sample in train}
    return HeldOut(len(videos), len(videos & trained_videos), len(people), len(people & trained_people))


def _merge_spans(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a source; the spans of a long video add up."""
    merged: dict[str, dict[str, Any]] = {}
    for entry in entries:
        row = merged.setdefault(entry["source"], {**entry, **dict.fromkeys(_SUMMED, 0), "dropped": Counter()})
        for name in _SUMMED:
            row[name] += entry[name]
        row["dropped"].update(entry["dropped"])
    return list(merged.values())


def _coverage(dataset: Dataset, store: Store) -> tuple[list[Coverage], int]:
    count = min(_COVERAGE_SAMPLES, len(dataset.samples))
    chosen = [dataset.samples[i] for i in np.linspace(0, len(dataset.samples) - 1, count).round().astype(int)]
    if not chosen:
        return [], 0
    grids = [np.load(io.BytesIO(read_part(store, sample, "regions.npy")), allow_pickle=False) for sample in chosen]
    grid = np.concatenate(grids)
    rows = []
    for index, region in enumerate(dataset.info["regions"]):
        touched = (grid >> index) & 1 == 1
        rows.append(Coverage(region, float(touched.mean()), float(touched.any(axis=(1, 2)).mean())))
    return rows, count
