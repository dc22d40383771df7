"""Groups of videos that a corpus tells apart, to score each by itself: answers to an attribute, or manipulations."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from eval.questions import Video
from pipeline.dataset import Dataset
from pipeline.errors import UsageError
from pipeline.text import nearest

Groups = Mapping[str, NDArray[np.int64]]
"""Rows of the videos of each group."""


def subgroups(dataset: Dataset, videos: Sequence[Video], labels: Sequence[str]) -> Groups:
    """Videos by the values of those labels that a dataset has, as `<label>=<value>`.

    A video without a label is in none of its groups.

    Args:
        dataset: whose schema knows labels.
        videos: what to group.
        labels: names of class labels, or `<group>/<name>` of a binary one.
    """
    rows: dict[str, list[int]] = {}
    for label in [label for label in labels if label in grouping_labels(dataset)]:
        group, slash, name = label.partition("/")
        for row, video in enumerate(videos):
            value = video.labels.get(group)
            if value is not None:
                value = value[dataset.labels[group]["names"].index(name)] if slash else value
                rows.setdefault(f"{label}={value}", []).append(row)
    return {name: np.array(rows[name]) for name in sorted(rows)}


def manipulations(videos: Sequence[Video]) -> Groups:
    """Each manipulation of FaceForensics++ together with all originals, as `method=<manipulation>`."""
    methods = np.array([str(video.labels.get("method")) for video in videos])
    real = np.array([video.labels.get("fake") == "real" for video in videos])
    told = {method for video, method in zip(videos, methods, strict=True) if video.labels.get("method") is not None}
    return {f"method={m}": np.flatnonzero((methods == m) | real) for m in sorted(told - set(methods[real]))}


def grouping_labels(dataset: Dataset) -> list[str]:
    """Labels of a dataset that videos can be grouped by: classes, and `<group>/<name>` of binary ones."""
    classes = [name for name, schema in dataset.labels.items() if schema["type"] == "class"]
    yes_no = {group: schema["names"] for group, schema in dataset.labels.items() if schema["type"] == "binary"}
    return [*classes, *(f"{group}/{name}" for group, names in yes_no.items() for name in names)]


def check_labels(labels: Sequence[str], datasets: Sequence[Dataset]) -> None:
    """Whether each label to group by is one of some dataset's.

    Raises:
        UsageError: it is not.
    """
    known = sorted({label for dataset in datasets for label in grouping_labels(dataset)})
    for label in labels:
        if label not in known:
            where = ", ".join(dataset.url for dataset in datasets)
            raise UsageError(f"eval.subgroups: no label {label!r} in {where}{nearest(label, known)}")
