"""What a corpus says now, beside what it said when its sources were planned."""

from pipeline.errors import UsageError
from pipeline.text import plural
from preprocess.corpora import Listing
from preprocess.dataset.plan import Plan

_SHOWN = 3


def check_drift(plan: Plan, listing: Listing, url: str) -> list[str]:
    """A line for each way in which a corpus has changed that new units can't follow.

    Raises:
        UsageError: sources are in another split now: training on what is to be tested on must not pass in silence.
    """
    then = {piece.source.name: piece.source for unit in plan.units for piece in unit.pieces}
    now = {source.name: source for source in listing.sources}
    both = [name for name in now if name in then]
    if moved := [name for name in both if now[name].split != then[name].split]:
        before, after = (side[moved[0]].split or "none" for side in (then, now))
        raise UsageError(
            f"{plural(len(moved), 'source')} of the dataset should be in another split now, as {moved[0]} "
            f"({before}, now {after}): set corpus.splits back, or give corpus.name a new name"
        )
    lines = []
    for field in ("identity", "labels", "text"):
        changed = [
            name
            for name in both
            if getattr(now[name], field) != getattr(then[name], field)
            # A pair that was planned in parts has the identity that its first part got.
            and not (field == "identity" and then[name].identity in now[name].everyone)
        ]
        if changed:
            whose = "its" if len(changed) == 1 else "their"
            lines.append(f"{_some(changed)} changed {whose} {field} in the corpus; the dataset keeps the old one")
    from_here = {piece.source.name for unit in plan.units if unit.root.path == url for piece in unit.pieces}
    if gone := sorted(from_here - now.keys()):
        verb = "is" if len(gone) == 1 else "are"
        lines.append(
            f"{url}: of {plural(len(from_here), 'source')} planned from it, {_some(gone)} {verb} no longer there"
        )
    return lines


def _some(names: list[str]) -> str:
    return f"{plural(len(names), 'source')} ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
