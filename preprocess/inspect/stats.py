"""`marlin dataset stats`: what a dataset holds, for people and for machines."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset import Dataset, Sample, load_dataset
from pipeline.errors import MarlinError
from pipeline.storage import Store
from pipeline.text import counts, duration, plural, short, size_text, table
from preprocess.dataset.finish import SPLITS
from preprocess.inspect.samples import load_grid

_PARALLEL_READS = 16
_EXAMPLES = 2
_NAMES = 50  # of a label, at most
_SIZES = (0, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Borders between bins of face sizes, in pixels of the source video."""


def dataset_stats(store: Store, measured: int) -> dict[str, Any]:
    """Everything that is worth counting, as JSON.

    Args:
        store: the dataset.
        measured: face sizes and regions are measured on so many samples, spread evenly, whose parts are read; on none,
            `face_side` and `regions` are empty.
    """
    dataset = load_dataset(store)
    info = dataset.info
    records = [entry for unit in dataset.units for entry in unit["sources"]]
    rates = {entry["source"]: entry["fps"] for entry in records}
    return {
        "url": dataset.url,
        "name": info["name"],
        "identity": dataset.identity,
        "parser": info["parser"],
        "counts": info["counts"],
        "identities": len({sample.identity for sample in dataset.samples}),
        "video_seconds": round(sum(entry["seconds"] for entry in records), 3),
        "face_seconds": round(sum(sample.frames / rates[sample.source] for sample in dataset.samples), 3),
        "bytes": sum(shard.size for shard in dataset.shards.values()),
        "shards": len(dataset.shards),
        "splits": info["splits"],
        "split_identities": {
            split: len({sample.identity for sample in dataset.of_split(split)}) for split in info["splits"]
        },
        "unparsed_frames": sum(entry["unparsed"] for entry in records),
        "dropped": info["dropped"],
        "quarantine": info["quarantine"],
        "quarantine_examples": _examples(dataset),
        "labels": _labels(dataset),
        "removed": info["removed"],
        "findings": info["findings"],
        "measured": _measure(dataset, store, measured),
    }


def stats_text(stats: Mapping[str, Any]) -> str:
    """The same for people, 80 columns wide; what was not measured is left out."""
    number, measured = stats["counts"], stats["measured"]
    removed = Counter(entry["reason"] for entry in stats["removed"])
    rows: list[tuple[str, str | list[str]]] = [
        ("dataset", stats["url"]),
        ("identity", stats["identity"][:12]),
        ("regions by", stats["parser"]),
        ("sources", f"{number['sources']:,}, of them {number['quarantined']:,} quarantined"),
        ("identities", f"{stats['identities']:,}"),
        ("video", duration(stats["video_seconds"])),
        ("faces", f"{duration(stats['face_seconds'])} in {plural(number['tracks'], 'track')}"),
        ("samples", f"{number['samples']:,} with {plural(number['frames'], 'frame')}"),
        ("splits", [_split(stats, split) for split in SPLITS]),
        ("stored", f"{size_text(stats['bytes'])} in {plural(stats['shards'], 'shard')}"),
        ("unparsed", f"{plural(stats['unparsed_frames'], 'frame')} without regions" * bool(stats["unparsed_frames"])),
        ("dropped runs", counts(stats["dropped"]) or "none"),
        ("excluded", plural(number["excluded"], "near-duplicate sample") * bool(number["excluded"])),
        ("removed", [f"{plural(count, 'source')}: {short(reason, 50)}" for reason, count in removed.items()]),
        ("corpus", [short(line, 200) for line in stats["findings"]]),
        ("quarantined", _quarantine(stats) or "none"),
        ("labels", [_label_line(name, label) for name, label in stats["labels"].items()]),
        ("face side", _histogram(measured["face_side"])),
        (
            "regions",
            [
                f"{name:<11}{row['patches']:>5.0%} of patches, in {row['frames']:>4.0%} of frames"
                for name, row in measured["regions"].items()
            ],
        ),
        ("measured", f"face side and regions on {measured['samples']:,} of {plural(number['samples'], 'sample')}"),
    ]
    return table(rows)


def _split(stats: Mapping[str, Any], split: str) -> str:
    count = stats["splits"][split]
    people = plural(stats["split_identities"][split], "identity", "identities")
    return f"{split} {count:,} ({people})" if count else ""


def _examples(dataset: Dataset) -> dict[str, list[dict[str, str]]]:
    good = dataset.sources.keys()
    examples: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for unit in dataset.units:
        for entry in unit["quarantined"]:
            known = examples[entry["reason"]]
            if entry["source"] not in good and len(known) < _EXAMPLES:
                known.setdefault(entry["source"], {"source": entry["source"], "detail": entry["detail"]})
    return {reason: list(known.values()) for reason, known in sorted(examples.items()) if known}


def _quarantine(stats: Mapping[str, Any]) -> list[str]:
    lines = []
    for reason, count in sorted(stats["quarantine"].items(), key=lambda one: -one[1]):
        lines.append(f"{reason} {count:,}")
        for example in stats["quarantine_examples"].get(reason, []):
            lines.append(f"- {short(example['source'], 30)}: {short(example['detail'], 100)}")
    return lines


def _labels(dataset: Dataset) -> dict[str, Any]:
    """Positives of each binary label, sources of each class, mean of each number; over the sources that have it."""
    found: dict[str, Any] = {}
    for name, kind in dataset.labels.items():
        values = [record.labels[name] for record in dataset.sources.values() if name in record.labels]
        columns = kind.get("names") or [name]
        summary: dict[str, Any] = {"type": kind["type"], "sources": len(values)}
        if kind["type"] == "class":
            summary["classes"] = {column: values.count(column) for column in columns}
        elif kind["type"] in {"binary", "real"} and values:
            rows = np.array([value if isinstance(value, list) else [value] for value in values], float)
            if kind["type"] == "binary":
                summary["positives"] = dict(zip(columns, rows.sum(axis=0).astype(int).tolist(), strict=True))
            else:
                summary["means"] = dict(zip(columns, rows.mean(axis=0).round(4).tolist(), strict=True))
        found[name] = summary
    return found


def _label_line(name: str, label: Mapping[str, Any]) -> str:
    values: Mapping[str, float] = next((label[kind] for kind in ("classes", "positives", "means") if kind in label), {})
    said = [f"{value:,}" if column == name else f"{column}: {value:,}" for column, value in values.items()]
    more = f" … and {len(said) - _NAMES:,} more" if len(said) > _NAMES else ""
    summary = f"{'mean ' * ('means' in label)}{', '.join(said[:_NAMES])}{more}"
    return f"{name} ({label['type']}, {plural(label['sources'], 'source')}): {summary}".rstrip(": ")


def _measure(dataset: Dataset, store: Store, most: int) -> dict[str, Any]:
    count = min(most, len(dataset.samples))
    if not count:
        return {"samples": 0, "face_side": {}, "regions": {}}
    chosen = [dataset.samples[i] for i in np.linspace(0, len(dataset.samples) - 1, count).round().astype(int)]
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        read = list(pool.map(lambda sample: _read(store, sample), chosen))
    filled, _ = np.histogram(np.concatenate([side for side, _ in read]), [*_SIZES, np.inf])
    regions: dict[str, Any] = {}
    for bit, name in enumerate(dataset.info["regions"]):
        touched = [(grid >> bit & 1).reshape(len(grid), -1) for _, grid in read]
        regions[name] = {
            "patches": float(np.mean(np.concatenate([one.mean(axis=1) for one in touched]))),
            "frames": float(np.mean(np.concatenate([one.any(axis=1) for one in touched]))),
        }
    return {
        "samples": count,
        "face_side": dict(zip(map(str, _SIZES), filled.tolist(), strict=True)),
        "regions": regions,
    }


def _read(store: Store, sample: Sample) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Sides of the boxes (frames,) in source pixels, and the region tags."""
    try:
        record = json.loads(store.read_range(sample.shard, *sample.parts["json"]))
        boxes = np.array(record["boxes"], float)
        grid = load_grid(store.read_range(sample.shard, *sample.parts["regions.npy"]))
        return boxes[:, 2] - boxes[:, 0], grid
    except (KeyError, ValueError, IndexError) as error:
        raise MarlinError(f"{sample.key} in {sample.shard} is damaged ({error}): run `marlin dataset verify`") from None


def _histogram(bins: Mapping[str, int]) -> list[str]:
    """A line for each bin between the lowest and the highest that is filled."""
    if not bins:
        return []
    borders, total = [int(border) for border in bins], sum(bins.values())
    names = [f"{low}-{high - 1}" for low, high in pairwise(borders)] + [f"{borders[-1]}-"]
    rows = [(name, count / total) for name, count in zip(names, bins.values(), strict=True)]
    filled = [place for place, (_, share) in enumerate(rows) if share]
    rows = rows[filled[0] : filled[-1] + 1]
    return [f"{name + ' px':<11}{share:>5.0%} {'#' * round(40 * share)}".rstrip() for name, share in rows]
