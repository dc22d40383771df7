"""Lines for what does not fit between a corpus, its lists and what is known of it."""

import re
from collections.abc import Iterable

from pipeline.text import printable
from preprocess.corpora.base import Gap, Source

_AGREEING = re.compile(r"\(([^()|]*)\|([^()|]*)\)")


def finding(kind: str, examples: Iterable[str], what: str) -> list[str]:
    """One line with the count and up to three examples, or none where there are no examples.

    Args:
        kind: of the corpus.
        examples: everything that does not fit.
        what: the rest of the line; `{n}` stands for the count, `(video has|videos have)` for what agrees with it.
    """
    found = sorted(examples)
    if not found:
        return []
    agreeing = _AGREEING.sub(lambda forms: forms[1 if len(found) == 1 else 2], what)
    return [f"{kind}: {agreeing.replace('{n}', f'{len(found):,}')}, as {', '.join(map(printable, found[:3]))}"]


def gap_finding(kind: str, gap: Gap) -> list[str]:
    """One line for a gap, or none where nothing is lacking."""
    return finding(kind, gap.names, f"{{n}} of {gap.total:,} {gap.what}")


def named_once(kind: str, sources: Iterable[Source]) -> tuple[tuple[Source, ...], list[str]]:
    """The sources without those that have the name of an earlier one, and a line about these.

    A name is all that a dataset knows a source by: of two with the same one, a run could not tell what is done.
    """
    first: dict[str, Source] = {}
    again = [
        f"{source.path} (beside {first[source.name].path})"
        for source in sources
        if first.setdefault(source.name, source) is not source
    ]
    line = finding(kind, again, "{n} (video has|videos have) the name of another one and (is|are) left out")
    return tuple(first.values()), line


def other_case(wanted: Iterable[str], there: Iterable[str]) -> list[str]:
    """Names that are there in other letters, upper or lower: `abc_0 (ABC_0)`."""
    folded = {name.casefold(): name for name in there}
    return [f"{name} ({folded[name.casefold()]})" for name in wanted if name.casefold() in folded]
