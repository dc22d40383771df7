"""How much of a corpus may lack a video or a label."""

from collections.abc import Iterator
from typing import Literal

from pipeline.config.schema import CorpusConfig
from pipeline.errors import MarlinError
from preprocess.corpora.base import Gap, Listing
from preprocess.corpora.findings import gap_finding

_FIXES: dict[Literal["max_missing", "max_unlabelled"], str] = {
    "max_missing": "check corpus.path and its lists",
    "max_unlabelled": "mend the labels",
}


def check_complete(cfg: CorpusConfig, listing: Listing) -> None:
    """Refuse a corpus with a gap that is wider than `corpus.max_missing` or `corpus.max_unlabelled` tolerate.

    Each list, and each label, is measured by itself: none can hide behind the others.

    Raises:
        MarlinError: there is one; with counts, up to three names of each, and what to do.
    """
    problems = [
        f"{line}, more than corpus.{gap.limit}={getattr(cfg, gap.limit):g}: {_FIXES[gap.limit]}, or raise it"
        for gap in (*listing.gaps, *_label_gaps(listing))
        if is_wider(gap, getattr(cfg, gap.limit))
        for line in gap_finding(cfg.kind, gap)
    ]
    if problems:
        raise MarlinError("; ".join(problems))


def is_wider(gap: Gap, most: float) -> bool:
    """Whether more than a share is lacking; exactly that share is not more."""
    # Not by a product: 0.29 * 100 is less than 29.
    return bool(gap.names) and len(gap.names) / gap.total > most


def _label_gaps(listing: Listing) -> Iterator[Gap]:
    for label in listing.labels:
        lacking = [source.name for source in listing.sources if label not in source.labels]
        yield Gap("max_unlabelled", f"videos (has|have) no label {label}", tuple(lacking), len(listing.sources))
