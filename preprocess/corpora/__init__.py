"""Corpora: one small module a layout."""

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from preprocess.corpora.base import Corpus, Source

__all__ = ["Corpus", "Source", "open_corpus"]


def open_corpus(cfg: CorpusConfig) -> Corpus:
    """The corpus of a configuration.

    Raises:
        UsageError: no path is given, or the kind is unknown.
        MarlinError: the place can't be read.
    """
    if not cfg.path:
        raise UsageError("corpus.path is empty: set it to the folder or s3:// prefix of the raw videos")
    if cfg.kind == "folder":
        from preprocess.corpora.folder import open_folder

        return open_folder(cfg.path)
    raise UsageError(f"corpus.kind={cfg.kind} is not a known corpus layout")
