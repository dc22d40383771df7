"""Lines for what does not fit between a corpus, its lists and what is known of it."""

from collections.abc import Iterable


def finding(kind: str, examples: Iterable[str], what: str) -> list[str]:
    """One line with the count and up to three examples, or none where there are no examples.

    Args:
        kind: of the corpus.
        examples: everything that does not fit.
        what: the rest of the line; `{n}` stands for the count.
    """
    found = sorted(examples)
    if not found:
        return []
    return [f"{kind}: {what.format(n=f'{len(found):,}')}, as {', '.join(found[:3])}"]
