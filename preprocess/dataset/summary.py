"""What a finished stage leaves, and what its verbs say when they are done, 80 columns wide."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.text import counts, plural, short, table
from preprocess.dataset.finish import SPLITS
from preprocess.dataset.removal import Effect

_NAMES_SHOWN = 10


@dataclass(frozen=True)
class Summary:
    """What a finished stage leaves.

    Attributes:
        url: where the dataset lies.
        identity: sha256 of dataset.json.
        counts: sources, quarantined, units, tracks, samples, excluded, frames.
        splits: samples by split.
        quarantine: quarantined sources by reason.
        dropped: runs of faces that became no sample, by reason.
        before: counts of the dataset that was there, 0 where there was none.
        new_units: units that this call processed; 0 when everything was there.
        new_sources: sources of the corpus that this call planned.
        known_sources: sources of the corpus whose names were in the dataset already.
        refused_sources: sources of the corpus that were taken out of the dataset for good.
    """

    url: str
    identity: str
    counts: Mapping[str, int]
    splits: Mapping[str, int]
    quarantine: Mapping[str, int]
    dropped: Mapping[str, int]
    before: Mapping[str, int]
    new_units: int
    new_sources: int
    known_sources: int
    refused_sources: int


def preprocess_text(summary: Summary, config: str) -> str:
    """What lies there now, by reason what does not, and what to do next."""
    number = summary.counts
    good = number["sources"] - number["quarantined"]
    return table(
        [
            ("dataset", summary.url),
            ("identity", summary.identity[:12]),
            ("this time", _work(summary)),
            ("sources", f"{number['sources']:,}: {good:,} in, {number['quarantined']:,} quarantined"),
            ("quarantined", counts(summary.quarantine)),
            (
                "skipped",
                f"{plural(summary.refused_sources, 'source')} taken out earlier" * bool(summary.refused_sources),
            ),
            ("samples", f"{number['samples']:,} of {plural(number['tracks'], 'track')}, {number['frames']:,} frames"),
            ("splits", ", ".join(f"{name} {summary.splits[name]:,}" for name in SPLITS if summary.splits[name])),
            ("dropped runs", counts(summary.dropped)),
            ("excluded", plural(number["excluded"], "near-duplicate sample") * bool(number["excluded"])),
            ("next", [f"marlin dataset stats -c {config}", f"marlin train -c {config}"]),
        ]
    )


def append_text(summary: Summary, config: str) -> str:
    """What was added, and what was not."""
    number, before = summary.counts, summary.before
    rows = {"sources": "source", "samples": "sample", "frames": "frame"}
    grown = [plural(number[name] - before[name], one) for name, one in rows.items()]
    now = [plural(number[name], one) for name, one in rows.items()]
    bad = number["quarantined"] - before["quarantined"]
    skipped = [
        (summary.known_sources, "source", "in it by name already"),
        (summary.refused_sources, "source", "taken out for good"),
    ]
    return table(
        [
            ("dataset", summary.url),
            ("identity", summary.identity[:12]),
            ("this time", _work(summary)),
            ("added", ", ".join(grown) + (f" ({bad:,} of the sources quarantined)" if bad > 0 else "")),
            ("skipped", [f"{plural(count, one)} {why}" for count, one, why in skipped if count]),
            ("now", ", ".join(now)),
            ("next", f"marlin dataset stats -c {config}"),
        ]
    )


def removal_text(effect: Effect, dry_run: bool) -> str:
    """What is gone, or would go, and what may have to follow."""
    verb = "would go" if dry_run else "taken out"
    held = f"{plural(effect.samples, 'sample')}, {plural(effect.frames, 'frame')}" if effect.samples else "no samples"
    where = f"in {plural(effect.units, 'unit')}" if effect.units else "not processed yet"
    one = len(effect.copies) == 1
    stay = f"{'this source stays' if one else 'these sources stay'}: take {'it' if one else 'them'} out too"
    return table(
        [
            (verb, _names(effect.sources) or "nothing new"),
            ("with", f"{held}, {where}" if effect.sources else ""),
            ("earlier", _names(effect.earlier)),
            ("same video", _names(effect.copies)),
            ("", f"{stay} if the same person is in {'it' if one else 'them'}" if effect.copies else ""),
            (
                "next",
                "delete copies elsewhere: caches, staged copies, backups" if effect.sources and not dry_run else "",
            ),
        ]
    )


def _work(summary: Summary) -> str:
    if not summary.new_units:
        return "nothing to do: everything was there"
    return f"{plural(summary.new_units, 'unit')} processed"


def _names(names: tuple[str, ...]) -> list[str]:
    shown = [short(name, 66) for name in names[:_NAMES_SHOWN]]
    return shown + ([f"… and {len(names) - _NAMES_SHOWN:,} more"] if len(names) > _NAMES_SHOWN else [])
