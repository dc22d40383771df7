"""What a corpus says now, beside what it said when its sources were planned."""

from collections.abc import Set

from pipeline.errors import UsageError
from pipeline.text import plural
from preprocess.corpora import Listing
from preprocess.dataset.plan import Plan

_SHOWN = 3


def check_drift(plan: Plan, listing: Listing, places: Set[str]) -> list[str]:
    """A line for each way in which a corpus has changed that new units can't follow.

    Args:
        plan: the units so far.
        listing: the corpus now.
        places: where the corpus is and may have been. What was planned from elsewhere is another corpus, in which the
            same name means another video.

    Raises:
        UsageError: sources are in another split now: training on what is to be tested on must not pass in silence.
    """
    from_here = [unit for unit in plan.units if unit.root.path in places]
    then = {piece.source.name: piece.source for unit in from_here for piece in unit.pieces}
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
    for url in dict.fromkeys(unit.root.path for unit in from_here):
        planned = {piece.source.name for unit in from_here if unit.root.path == url for piece in unit.pieces}
        if gone := sorted(planned - now.keys()):
            verb = "is" if len(gone) == 1 else "are"
            lines.append(
                f"{url}: of {plural(len(planned), 'source')} planned from it, {_some(gone)} {verb} no longer there"
            )
    return lines


def _some(names: list[str]) -> str:
    return f"{plural(len(names), 'source')} ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"
