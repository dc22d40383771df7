"""What `marlin dataset verify` found, and how it says so."""

from dataclasses import dataclass, field

from pipeline.text import plural, printable, table


@dataclass(frozen=True)
class Problem:
    """Something that is not as committed.

    Attributes:
        text: what, in one line.
        unit: key of the manifest of the unit that it lies in; None where it lies in none.
        repairable: whether `--repair` mends it; the text says what to do where not.
    """

    text: str
    unit: str | None = None
    repairable: bool = True


@dataclass
class Report:
    """What a check found.

    Attributes:
        url: of the dataset.
        identity: sha256 of dataset.json.
        shards, samples, frames: how many were looked at.
        excluded: how many of the samples are left out as near-duplicates.
        problems: what is not as committed.
        warnings: what is worth knowing, and no problem.
    """

    url: str
    identity: str
    shards: int = 0
    samples: int = 0
    frames: int = 0
    excluded: int = 0
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def units(self) -> list[str]:
        """Keys of the manifests of the units that have problems."""
        return sorted({problem.unit for problem in self.problems if problem.unit})

    def repairable(self) -> bool:
        """Whether `--repair` has anything to mend."""
        return any(problem.repairable for problem in self.problems)

    def text(self, most: int) -> str:
        """All that was found; at most so many problems, a line each."""
        lines = [printable(problem.text) for problem in self.problems[:most]]
        if len(self.problems) > most > 0:
            lines.append(f"… and {len(self.problems) - most:,} more")
        lines += [f"warning: {printable(text)}" for text in self.warnings]
        if not self.problems:
            content = [plural(self.shards, "shard"), plural(self.samples, "sample"), plural(self.frames, "frame")]
            rows = [
                ("dataset", self.url),
                ("identity", self.identity[:12]),
                ("checked", f"{', '.join(content)}: all as committed"),
                ("excluded", f"{self.excluded:,} of the samples as near-duplicates" if self.excluded else ""),
            ]
            lines.append(table(rows))
        return "\n".join(lines)
