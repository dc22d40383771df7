"""Tables of results: means over seeds, and paired differences with their 95% intervals.

A score is the macro AUC: the area under the ROC curve of every answer, which chance makes 0.5, all answers alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.protocol import QUESTIONS, Protocol, Table
from benchmarks.learning.results import Result, seeds_of
from eval.sweep import Row, compare
from pipeline.errors import MarlinError
from pipeline.storage.atomic import whole_file

SCORE = "macro_auc"
READINGS = {
    "linear": ("linear", "1", "Linear probe"),
    "places": ("places", "1", "Linear probe by place"),
    "few": ("linear", "0.1", "Linear probe, a tenth of the labels"),
    "attentive": ("attentive", "1", "Attentive probe"),
    "knn": ("knn", "1", "k nearest neighbours"),
}
"""How a question was learned: protocol, share of the labels, and the words for it."""

COMPARED = ("linear", "places")
"""Readings whose differences are told."""

_CRITIC = {
    "mse": "mse in training",
    "wasserstein": "Wasserstein estimate",
    "critic_grad_norm": "critic's gradient norm",
    "grad_norm": "generator's gradient norm",
}
Lines = list[str]


def markdown(protocol: Protocol, results: Sequence[Result]) -> str:
    """Every table of a protocol that has results, and variants that those before it do not have."""
    lines: Lines = []
    shown: set[str] = set()
    for name, table in protocol.tables.items():
        there = [variant for variant in table.variants if seeds_of(results, variant)]
        if len(there) < 2 or shown.issuperset(there):
            continue
        shown.update(there)
        lines += [f"### {name.capitalize()}", ""]
        for reading in READINGS:
            lines += _scores(results, there, reading)
        for against, reading in product(table.against, COMPARED):
            lines += _differences(results, table, there, against=against, reading=reading)
        lines += _rebuilt(results, there)
        lines += _critics(results, there) if name == "critics" else []
    return "\n".join(lines)


def summary(protocol: Protocol, results: Sequence[Result]) -> dict[str, Any]:
    """The same as JSON: by table, reading, what is compared with, and question, the rows of all variants."""
    found: dict[str, Any] = {}
    for name, table in protocol.tables.items():
        for reading in READINGS:
            for against in table.against:
                rows = {
                    question: [asdict(row) for row in _compared(results, table.variants, against, question, reading)]
                    for question in QUESTIONS
                }
                found.setdefault(name, {}).setdefault(reading, {})[against] = rows
    return found


def best_setting(protocol: Protocol, results: Sequence[Result]) -> tuple[str, dict[str, float]]:
    """The setting of the search with the best mean score, and those of all.

    The mean is over the search's variants and seeds and over all questions, by linear probes of all labels.

    Raises:
        MarlinError: a setting was not measured.
    """
    found: dict[str, float] = {}
    for name in protocol.search.settings if protocol.search else ():
        scores = [
            score
            for result in results
            if result["setting"] == name
            for question in QUESTIONS
            if (score := score_of(result, question, "linear")) is not None
        ]
        if not scores:
            raise MarlinError(
                f"setting {name} of protocol {protocol.name} has no result: `run --stage tune` makes them"
            )
        found[name] = float(np.mean(scores))
    if not found:
        raise MarlinError(f"protocol {protocol.name} searches nothing: there is nothing to choose")
    return max(found, key=lambda name: found[name]), found


def put_into(file: Path, protocol: Protocol, results: Sequence[Result]) -> None:
    """Put the tables into a page, between `<!-- NAME -->` and `<!-- /NAME -->` of the protocol's name.

    Raises:
        MarlinError: the page has no such place.
    """
    text, begin, end = file.read_text("utf-8"), f"<!-- {protocol.name} -->\n", f"<!-- /{protocol.name} -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise MarlinError(f"{file} has no {begin.strip()} … {end}: put both where the tables shall be")
    with whole_file(file) as target:
        target.write(f"{head}{begin}\n{markdown(protocol, results)}\n{end}{tail}".encode())


def score_of(result: Result, question: str, reading: str) -> float | None:
    """A score of a result, None where that was not measured."""
    protocol, share, _ = READINGS[reading]
    task = result["tasks"].get(f"{question}-{protocol}")
    return None if task is None else float(task["shares"][share][SCORE])


def differences(results: Sequence[Result], variant: str, against: str, question: str, reading: str) -> Row | None:
    """A variant's score against another one's, seed by seed; None where one of them was not measured."""
    rows = _compared(results, [variant], against, question, reading)
    return rows[1] if len(rows) == 2 else None


def _compared(
    results: Sequence[Result], variants: Sequence[str], against: str, question: str, reading: str
) -> list[Row]:
    """Rows of the variants that were measured, after that of the one that they are compared with; empty without it."""
    scores: dict[str, dict[int, float]] = {}
    for name in dict.fromkeys((against, *variants)):
        found = {seed: score_of(result, question, reading) for seed, result in seeds_of(results, name).items()}
        if measured := {seed: value for seed, value in found.items() if value is not None}:
            scores[name] = measured
    return compare(scores) if against in scores else []


def _scores(results: Sequence[Result], variants: Sequence[str], reading: str) -> Lines:
    def cell(found: Sequence[Result], question: str) -> str:
        values = [value for one in found if (value := score_of(one, question, reading)) is not None]
        return _mean(values, "{:.3f}")

    told = [variant for variant in variants if score_of(_any(results, variant), QUESTIONS[0], reading) is not None]
    return _table(results, f"{READINGS[reading][2]}, macro AUC", told, QUESTIONS, cell)


def _differences(
    results: Sequence[Result], table: Table, variants: Sequence[str], *, against: str, reading: str
) -> Lines:
    others = [variant for variant in variants if variant not in table.against[: table.against.index(against) + 1]]
    rows = []
    for variant in others:
        cells = []
        for question in QUESTIONS:
            row = differences(results, variant, against, question, reading)
            cells.append(_difference(row))
        if any(cells):
            rows.append(f"| {variant} | {' | '.join(cells)} |")
    if not rows or not seeds_of(results, against):
        return []
    title = f"{READINGS[reading][2]}, difference from {against}, 95% interval"
    return [*_head(title, ["variant", *QUESTIONS]), *rows, ""]


def _rebuilt(results: Sequence[Result], variants: Sequence[str]) -> Lines:
    """PSNR by region of the variants, and of the guesses beside them."""
    told = [variant for variant in variants if _any(results, variant)["reconstruction"]]
    if not told:
        return []
    regions = list(_any(results, told[0])["reconstruction"])

    def cell(found: Sequence[Result], region: str, method: str = "checkpoint") -> str:
        return _mean([one["reconstruction"][region][method] for one in found], "{:.2f}")

    lines = _table(results, "PSNR in dB of what 90% Fasking hides, by region", told, regions, cell)
    of_all = [one for variant in told for one in seeds_of(results, variant).values()]
    for method, words in {"mean": "mean visible cube", "nearest": "nearest visible cube"}.items():
        values = [f"{np.mean([one['reconstruction'][region][method] for one in of_all]):.2f}" for region in regions]
        lines.insert(-1, f"| *{words}* | | {' | '.join(values)} |")
    return lines


def _critics(results: Sequence[Result], variants: Sequence[str]) -> Lines:
    def cell(found: Sequence[Result], name: str) -> str:
        return _mean([one["training"]["last"][name] for one in found if name in one["training"]["last"]], "{:.3g}")

    return _table(
        results, "Training, mean over its last tenth", variants, list(_CRITIC), cell, words=list(_CRITIC.values())
    )


def _table(
    results: Sequence[Result],
    title: str,
    variants: Sequence[str],
    columns: Sequence[str],
    cell: Callable[[Sequence[Result], str], str],
    *,
    words: Sequence[str] = (),
) -> Lines:
    rows = []
    for variant in variants:
        found = list(seeds_of(results, variant).values())
        rows.append(f"| {variant} | {len(found)} | {' | '.join(cell(found, column) for column in columns)} |")
    return [*_head(title, ["variant", "seeds", *(words or columns)]), *rows, ""] if rows else []


def _head(title: str, columns: Sequence[str]) -> Lines:
    return [f"**{title}**", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _any(results: Sequence[Result], variant: str) -> Result:
    return next(iter(seeds_of(results, variant).values()))


def _mean(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    mean = form.format(np.mean(values))
    return f"{mean} ± {form.format(np.std(values, ddof=1))}" if len(values) > 1 else mean


def _difference(row: Row | None) -> str:
    if row is None or row.difference is None:
        return ""
    if row.interval is None:
        return f"{row.difference:+.3f} (one seed)"
    low, high = row.interval
    bold = "**" if low > 0 or high < 0 else ""
    return f"{bold}{row.difference:+.3f}{bold} [{low:+.3f}, {high:+.3f}]"
