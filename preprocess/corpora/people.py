"""Who belongs together because they are seen together."""

from collections.abc import Iterable
from typing import Any


def groups_of(seen: Iterable[Iterable[str]]) -> Any:
    """Groups of names, as a `scipy.cluster.hierarchy.DisjointSet`.

    Args:
        seen: the names in each video; all of one are in the same group, and so are groups that share a name.
    """
    from scipy.cluster.hierarchy import DisjointSet

    groups = DisjointSet()
    for names in seen:
        first, *others = names
        groups.add(first)
        for other in others:
            groups.add(other)
            groups.merge(first, other)
    return groups
