"""The dataset that a run trains on: one, or several under one index (`data.mix`)."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.dataset import Dataset, load_dataset
from pipeline.errors import UsageError
from pipeline.layout import dataset_store
from pipeline.storage import ReadStore, open_store
from pipeline.storage.manifest import to_json

_NAME = "data.mix"


@dataclass(frozen=True)
class MixedDataset(Dataset):
    """Several datasets under one index. Names in it begin with their dataset's; `info` is what all agree in.

    Attributes:
        parts: the datasets under these names.
        weights: how many clips are taken of each in a round.
    """

    parts: tuple[Dataset, ...]
    weights: tuple[int, ...]


@dataclass(frozen=True)
class MixedStore:
    """A `ReadStore` of the objects of several stores, by the names that `MixedDataset` gives them."""

    stores: Mapping[str, ReadStore]

    @property
    def url(self) -> str:
        return _NAME

    def read_range(self, key: str, start: int, length: int) -> bytes:
        store, name = self._find(key)
        return store.read_range(name, start, length)

    def stream(self, key: str) -> Iterator[bytes]:
        store, name = self._find(key)
        return store.stream(name)

    def local_path(self, key: str) -> Path | None:
        store, name = self._find(key)
        return store.local_path(name)

    def _find(self, key: str) -> tuple[ReadStore, str]:
        label, _, name = key.partition("/")
        return self.stores[label], name


def open_data(cfg: Config) -> tuple[Dataset, ReadStore]:
    """The dataset that a run trains on, and where its bytes are.

    Raises:
        UsageError: datasets of a mix do not go together.
        MarlinError: a dataset is missing, unfinished or damaged.
    """
    if not cfg.data.mix:
        store = dataset_store(cfg)
        return load_dataset(store), store
    stores = [open_store(part.dataset) for part in cfg.data.mix]
    datasets = [load_dataset(store) for store in stores]
    mixed = mix_datasets(datasets, [part.weight for part in cfg.data.mix])
    return mixed, MixedStore(dict(zip(_labels(datasets), stores, strict=True)))


def mix_datasets(datasets: Sequence[Dataset], weights: Sequence[int]) -> MixedDataset:
    """Several datasets under one index.

    Raises:
        UsageError: one is there twice, or their pictures or patches differ in size.
    """
    _check_alike(datasets)
    parts = tuple(_labelled(dataset, label) for dataset, label in zip(datasets, _labels(datasets), strict=True))
    members = [[dataset.identity, weight] for dataset, weight in zip(datasets, weights, strict=True)]
    return MixedDataset(
        url=_NAME,
        identity=hashlib.sha256(to_json({"mix": members})).hexdigest(),
        info={name: value for name, value in parts[0].info.items() if all(p.info.get(name) == value for p in parts)},
        samples=tuple(sample for part in parts for sample in part.samples),
        excluded=sum(part.excluded for part in parts),
        shards={name: entry for part in parts for name, entry in part.shards.items()},
        sources={name: record for part in parts for name, record in part.sources.items()},
        units=tuple(unit for part in parts for unit in part.units),
        parts=parts,
        weights=tuple(weights),
    )


def weighted_parts(dataset: Dataset) -> list[tuple[Dataset, int]]:
    """The datasets of a mix with their weights; of a plain one, itself."""
    if isinstance(dataset, MixedDataset):
        return list(zip(dataset.parts, dataset.weights, strict=True))
    return [(dataset, 1)]


def mix_members(dataset: Dataset) -> list[dict[str, Any]]:
    """What a mix consists of, for the records of a run; nothing for a plain dataset, whose identity says it all."""
    if not isinstance(dataset, MixedDataset):
        return []
    return [
        {"dataset": part.url, "identity": part.identity, "weight": weight} for part, weight in weighted_parts(dataset)
    ]


def _labels(datasets: Sequence[Dataset]) -> list[str]:
    """A name for each dataset: its place in the mix and its own name, which others may share."""
    return [f"{place}-{dataset.info['name']}" for place, dataset in enumerate(datasets)]


def _labelled(dataset: Dataset, label: str) -> Dataset:
    def named(name: str) -> str:
        return f"{label}/{name}"

    return replace(
        dataset,
        samples=tuple(
            replace(
                sample,
                key=named(sample.key),
                unit=named(sample.unit),
                shard=named(sample.shard),
                source=named(sample.source),
                identity=named(sample.identity),
            )
            for sample in dataset.samples
        ),
        shards={named(name): replace(entry, name=named(entry.name)) for name, entry in dataset.shards.items()},
        sources={
            named(name): replace(record, name=named(name), identity=named(record.identity))
            for name, record in dataset.sources.items()
        },
    )


def _check_alike(datasets: Sequence[Dataset]) -> None:
    first = datasets[0]
    for place, dataset in enumerate(datasets):
        for other in datasets[:place]:
            if other.identity == dataset.identity:
                raise UsageError(f"data.mix names one dataset twice, as {other.url} and as {dataset.url}: drop one")
        for what in ("size", "patch"):
            if dataset.info[what] != first.info[what]:
                raise UsageError(
                    f"data.mix: preprocess.{what} is {dataset.info[what]} in {dataset.url} and {first.info[what]} in "
                    f"{first.url}: preprocess them alike"
                )
