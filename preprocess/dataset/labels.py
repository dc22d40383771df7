"""One label schema for a dataset that was made from several corpora, or from one whose list grew."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import UsageError


def merged(schemas: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The labels of all schemas by name: classes are united, the ranges of numbers cover all.

    Raises:
        UsageError: one name stands for different things.
    """
    labels: dict[str, Any] = {}
    for schema in schemas:
        for name, label in schema.items():
            labels[name] = _both(name, labels[name], label) if name in labels else label
    return labels


def _both(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    if one == other:
        return one
    kinds = one["type"], other["type"]
    if kinds == ("class", "class"):
        return {**one, "names": list(dict.fromkeys([*one["names"], *other["names"]]))}
    if kinds == ("real", "real") and one.get("names") == other.get("names"):
        (low, high), (lower, higher) = one["range"], other["range"]
        return {**one, "range": [min(low, lower), max(high, higher)]}
    raise UsageError(
        f"label {name} is {kinds[0]} in one corpus of the dataset and a different {kinds[1]} in another: rename one"
    )
