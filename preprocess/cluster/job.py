"""A unit on its way through the cluster, and how the sources are found that kill the processes that work on them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.storage import Store
from preprocess.corpora import Media
from preprocess.dataset.manifests import Content, commit, quarantine_entry
from preprocess.dataset.plan import Unit
from preprocess.quarantine import BadSource

# Further attempts of a unit whose process died (killed, out of memory, crashed in a decoder or network, node gone).
RETRIES = 3


@dataclass(eq=False)
class Job:
    """A unit, and what is known of its sources.

    Attributes:
        open_media: gives the corpus that the unit was planned from.
        deaths: processes that died since the last success.
        suspects: sources still to be tried alone, by number.
        searched: all sources have been tried alone, or are about to be.
        bad: sources that are left out.
    """

    unit: Unit
    open_media: Callable[[str, str], Media]
    deaths: int = 0
    suspects: list[int] = field(default_factory=list)
    searched: bool = False
    bad: dict[int, BadSource] = field(default_factory=dict)

    def submit(self, actor: Any) -> Any:
        """Starts the next step; its result is the manifest when the step ends the job."""
        unit, gone = self.located()
        return (
            actor.rehearse.remote(unit, self.suspects[0])
            if self.suspects
            else actor.process.remote(unit, {**gone, **self.bad})
        )

    def survived(self) -> None:
        """The step is done."""
        self.deaths = 0
        del self.suspects[:1]

    def died(self, store: Store) -> dict[str, Any] | None:
        """A process died of the step; the manifest where that ends the job."""
        self.deaths += 1
        if self.deaths <= RETRIES:
            return None
        numbers = range(len(self.unit.pieces))
        self.deaths = 0
        if self.suspects:
            self.bad[self.suspects.pop(0)] = _DEADLY
        elif len(numbers) > 1 and not self.searched:
            self.suspects, self.searched = list(numbers), True
        else:
            entries = [quarantine_entry(piece, self.bad.get(n, _DEADLY)) for n, piece in enumerate(self.unit.pieces)]
            return commit(store, self.unit, [], Content(quarantined=entries))
        return None

    def located(self) -> tuple[Unit, dict[int, BadSource]]:
        """The unit with the addresses of its sources, so that a worker needs no list, and those that have none now."""
        media = self.open_media(self.unit.root.kind, self.unit.root.path)
        pieces = list(self.unit.pieces)
        gone: dict[int, BadSource] = {}
        for number, piece in enumerate(pieces):
            try:
                pieces[number] = replace(piece, source=media.located(piece.source))
            except BadSource as bad:
                gone[number] = bad
        return replace(self.unit, pieces=tuple(pieces)), gone


_DEADLY = BadSource(
    "worker-died",
    "the process that worked on it, or that ran a network on it, died, hung or ran out of memory at each of "
    f"{RETRIES + 1} attempts",
)
