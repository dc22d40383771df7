"""Near-duplicates across units: the list of samples that a dataset holds and leaves out."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.dataset import SCHEMA
from pipeline.storage import Store
from pipeline.storage.manifest import FileEntry, to_json
from preprocess.faces.duplicates import Entry, near_duplicates


def find_exclusions(samples: Iterable[Entry]) -> list[dict[str, str]]:
    """The samples to leave out, by key, each with the one that is kept in its place.

    Args:
        samples: all samples in the order of the dataset.
    """
    copies = near_duplicates(samples)
    return [{"key": key, "reason": "near-duplicate", "kept": kept} for key, kept in sorted(copies.items())]


def write_exclusions(store: Store, excluded: Sequence[Mapping[str, str]]) -> dict[str, Any] | None:
    """Puts the list under a name made from its content; returns its entry for dataset.json, None where it is empty."""
    if not excluded:
        return None
    data = to_json({"schema": SCHEMA, "excluded": list(excluded)})
    sha256 = hashlib.sha256(data).hexdigest()
    entry = FileEntry(f"exclusions/{sha256[:12]}.json", len(data), sha256)
    store.write(entry.name, data)
    return entry.to_dict()
