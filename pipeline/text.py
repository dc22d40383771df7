"""Plain text that people read: tables of two columns that fit a terminal."""

import textwrap
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

WIDTH = 80


def table(rows: Iterable[tuple[str, str | Iterable[str]]]) -> str:
    """Names to the left, values to the right of them, wrapped at 80 columns; a value of several lines stays so.

    Rows with an empty value are left out. Words that are longer than a line, such as URLs, are not cut; a command
    (a line that begins with `marlin `) is continued with backslashes, so that it can be pasted.
    """
    wanted = [(name, [value] if isinstance(value, str) else list(value)) for name, value in rows]
    shown = [(name, [line for line in lines if line]) for name, lines in wanted]
    shown = [(name, lines) for name, lines in shown if lines]
    left = max((len(name) for name, _ in shown), default=0) + 2
    out: list[str] = []
    for name, lines in shown:
        for number, line in enumerate(lines):
            more = " \\" if line.startswith("marlin ") else ""
            wrapped = textwrap.wrap(
                line,
                WIDTH - len(more),
                initial_indent=("" if number else name).ljust(left),
                subsequent_indent=" " * (left + 2),
                break_long_words=False,
                break_on_hyphens=False,
                drop_whitespace=True,
            )
            out += [part + more for part in wrapped[:-1]] + wrapped[-1:]
    return "\n".join(out)


def counts(numbers: Mapping[str, int]) -> str:
    """`a 2, b 1`, the largest first."""
    return ", ".join(
        f"{name} {number:,}" for name, number in sorted(numbers.items(), key=lambda one: (-one[1], one[0]))
    )


def plural(number: int, one: str, many: str = "") -> str:
    """`1 source`, `2 sources`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """`4.5 seconds`, `2.3 minutes`, `1,234.5 hours`: in the largest unit that leaves at least two of it."""
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} seconds"


def size_text(size: int) -> str:
    """Bytes in decimal units: `1.2 GB`."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def nearest(name: str, known: Collection[str]) -> str:
    """What a name that is not known may have been meant to be, in brackets; empty where nothing is known."""
    if not known:
        return ""
    near = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f" (nearest: {', '.join(map(repr, near))})" if near else f" (one that it holds: {min(known)!r})"


def printable(name: str) -> str:
    """A name from outside, on one line: control characters as escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


def short(text: str, width: int) -> str:
    """`printable` text, cut in the middle where it is longer."""
    text = printable(text)
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def first_line(error: Exception) -> str:
    """What an error says, without what follows."""
    return next(iter(str(error).splitlines()), "no message")
