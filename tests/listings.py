"""What a corpus lists, in forms that tests compare."""

from pathlib import Path
from typing import Any

from pipeline.config.schema import CorpusConfig
from preprocess.corpora import Listing, Source, list_corpus


def listed(kind: str, path: Path | str, **keys: Any) -> Listing:
    return list_corpus(CorpusConfig(kind=kind, path=str(path), **keys))  # type: ignore[arg-type]


def by_name(listing: Listing) -> dict[str, Source]:
    return {source.name: source for source in listing.sources}


def splits(listing: Listing) -> dict[str, str | None]:
    return {source.name: source.split for source in listing.sources}


def has(listing: Listing, text: str) -> bool:
    return any(text in line for line in listing.findings)
