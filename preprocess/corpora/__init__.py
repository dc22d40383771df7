"""Corpora: one small module a layout."""

import json
from collections.abc import Callable
from dataclasses import replace

from pipeline.config.schema import CorpusConfig
from pipeline.storage import Denied, NotFound
from preprocess.corpora.base import Listing, Media, Opener, Source
from preprocess.corpora.celebv_hq import list_sources as celebv_hq
from preprocess.corpora.ffpp import list_sources as ffpp
from preprocess.corpora.folder import list_sources as folder
from preprocess.corpora.listed import list_sources as listed
from preprocess.corpora.listed import open_list
from preprocess.corpora.lrs2 import list_sources as lrs2
from preprocess.corpora.media import open_folder
from preprocess.corpora.mosei import list_sources as mosei
from preprocess.corpora.places import Places
from preprocess.corpora.ytf import list_sources as ytf
from preprocess.drawing import RECORD as DRAWN_RECORD

__all__ = ["LAYOUTS", "Listing", "Media", "Opener", "Source", "list_corpus", "open_media", "open_places"]

LAYOUTS: dict[str, Callable[[Media, CorpusConfig], Listing]] = {
    "folder": folder,
    "ytf": ytf,
    "celebv-hq": celebv_hq,
    "mosei": mosei,
    "ffpp": ffpp,
    "lrs2": lrs2,
    "list": listed,
}
"""By `corpus.kind`."""


def list_corpus(cfg: CorpusConfig) -> Listing:
    """The corpus of a configuration as it is now.

    Raises:
        UsageError: there is no path, no such folder, or a list that does not fit.
        MarlinError: the place, or a list of the corpus, can't be read.
    """
    media = open_media(cfg.kind, cfg.path)
    listing = LAYOUTS[cfg.kind](media, cfg)
    return replace(listing, findings=(*_drawn(media, cfg.kind), *listing.findings))


def _drawn(media: Media, kind: str) -> list[str]:
    """A line that stays with the dataset where a corpus is one of `marlin samples draw`."""
    try:
        record = json.loads(media.read(DRAWN_RECORD))
        return [f"{kind}: drawings of {record['generator']} ({record['sha256'][:12]}), no recordings of people"]
    except (NotFound, Denied, ValueError, KeyError, TypeError):
        return []  # without leave to list, S3 denies what is not there


def open_media(kind: str, path: str) -> Media:
    """The place of a corpus of this kind: a path, file:// or s3:// URL of its folder, or of its list.

    Raises:
        UsageError: nothing is given, or there is no such local folder or list.
    """
    return open_list(path) if kind == "list" else open_folder(path)


def open_places(kind: str, path: str) -> Opener:
    """Opens the sources of that corpus as `Media.located` gives them: no list of it is read, whatever its size.

    Raises:
        UsageError: there is no such local folder.
    """
    return Places(open_list(path).home) if kind == "list" else open_folder(path)
