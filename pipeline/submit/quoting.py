"""Values on their way into batch scripts: nothing reaches a script that was not quoted for its place there."""

import shlex
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.text import printable


class Quoted(str):
    """Text that may stand in a script as it is."""

    __slots__ = ()


def quote(value: object) -> Quoted:
    """One word of bash."""
    return Quoted(shlex.quote(str(value)))


def sbatch(value: object) -> Quoted:
    """One value of an `#SBATCH` line, whose quotes are SLURM's own: a backslash keeps the next character.

    Raises:
        UsageError: a control character, which no quoting keeps inside its line.
    """
    text = str(value)
    if not text.isprintable():
        raise UsageError(f"{text!r} can't stand in a batch script: leave out newlines and control characters")
    if text and all(char.isalnum() or char in "_./:,=@%+-" for char in text):
        return Quoted(text)
    return Quoted('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')


def log_pattern(folder: Path, name: str) -> str:
    """`--output` of a job: `name` may hold SLURM's `%j`, the folder is taken literally.

    Raises:
        UsageError: the folder holds a backslash, after which SLURM replaces nothing.
    """
    if "\\" in str(folder):
        shown = printable(str(folder))
        raise UsageError(f"{shown}: SLURM can't write logs to a folder with a backslash: set launch.slurm.folder")
    return f"{str(folder).replace('%', '%%')}/{name}"


def shell(line: str) -> Quoted:
    """A line of shell that an administrator wrote, as it is."""
    return Quoted(line)


def refuse_unquoted(value: object) -> object:
    """What a template may insert.

    Raises:
        UsageError: a text that went through none of the filters.
    """
    if isinstance(value, Quoted | int):
        return value
    raise UsageError(f"a template inserts {value!r} without a filter: write `| quote`, or `| sbatch` after #SBATCH")
