"""Keeps everything of one person in one split, in whatever order the parts of a corpus are planned."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pipeline.config.schema import PreprocessConfig
from pipeline.errors import UsageError
from pipeline.text import plural
from preprocess.corpora import Source
from preprocess.corpora.people import groups_of
from preprocess.dataset.plan import Plan
from preprocess.faces.runs import held_out_share


def known_people(plan: Plan, new: Sequence[Source], kind: str, cfg: PreprocessConfig) -> list[Source]:
    """New sources of a kind of corpus, under the identities that the plan has for who is seen in them.

    Raises:
        UsageError: a person's videos would be in several splits, and not because lists say so.
    """
    then = [piece.source for unit in plan.units if unit.root.kind == kind for piece in unit.pieces]
    groups = groups_of(source.everyone for source in (*then, *new))
    planned: defaultdict[str, set[str]] = defaultdict(set)
    for source in then:
        planned[groups[source.identity]].add(source.identity)
    placed = [replace(source, identity=min(planned.get(groups[source.identity], {source.identity}))) for source in new]
    together: defaultdict[str, list[Source]] = defaultdict(list)
    for source in placed:
        together[groups[source.identity]].append(source)
    for source in then:
        if groups[source.identity] in together:
            together[groups[source.identity]].append(source)
    _check_sides([sorted(sources, key=lambda source: source.name) for sources in together.values()], cfg)
    return placed


def _check_sides(groups: Sequence[Sequence[Source]], cfg: PreprocessConfig) -> None:
    torn = []
    for sources in groups:
        sides = {_side(source, cfg): source.name for source in sources}
        if len(sides) > 1 and not all(source.split for source in sources):
            torn.append(sides)
    if torn:
        (one, first), (other, second), *_ = sorted(torn[0].items())
        raise UsageError(
            f"{plural(len(torn), 'person', 'people')} would be in several splits, as in {first} ({one}) and {second} "
            f"({other}): put all of them into corpus.splits, or make a new dataset of all parts at once (corpus.name)"
        )


def _side(source: Source, cfg: PreprocessConfig) -> str:
    return source.split or ("val" if held_out_share(source.identity, cfg) == 1 else "train")
