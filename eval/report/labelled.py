"""Labelled tasks as the report shows them: the paper's tables, few labels, and labels and groups by themselves.

Pure: from the results of runs to rows of text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.evaluated import Evaluated
from eval.report.published import TABLES, Answer, Asked, PaperTable, Published
from eval.report.runs import RunView
from eval.report.shown import first_of, gap, headline_of, is_labelled, score, score_title, spread
from eval.tasks.registry import TASKS

HOW = {"linear": "linear probe", "finetune": "fine-tuning", "attentive": "attentive probe", "knn": "k-NN"}
"""Protocols in words; the paper's own come first."""
SCORES = ("accuracy", "auc")
"""Columns of a table."""

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """A score in text, with its spread over repeats and its interval, both perhaps empty."""

    text: str
    spread: str = ""
    interval: str = ""


@dataclass(frozen=True)
class Row:
    """What one run measured in one way; ``shared_people`` are seen in the scored videos and in the training."""

    run: str
    how: str
    scores: Mapping[str, Shown]
    majority: str
    scored: str
    shared_people: int
    dataset: Evaluated


@dataclass(frozen=True)
class Absent:
    """What some runs did not do; `runs` is empty where none did."""

    runs: Sequence[str]
    how: Sequence[str]


@dataclass(frozen=True)
class Block:
    """What a table says of one thing that was asked.

    Attributes:
        title: what was asked.
        rows: what was measured.
        absent: what was not.
        published: reference rows, with their scores in text.
    """

    title: str
    rows: Sequence[Row]
    absent: Sequence[Absent]
    published: Sequence[tuple[Published, Mapping[str, str]]]


@dataclass(frozen=True)
class Table:
    """A table of the paper, and its blocks."""

    paper: PaperTable
    blocks: Sequence[Block]


@dataclass(frozen=True)
class FewRow:
    """Scores by the share of labels learned from: value and number of videos, or None."""

    task: str
    run: str
    score: str
    cells: Sequence[tuple[Shown, int] | None]


@dataclass(frozen=True)
class Listed:
    """A list of labels or of groups with scores, best first; `summary` says the best and the worst."""

    task: str
    run: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[str]]]
    summary: Sequence[str]


@dataclass(frozen=True)
class LabelledView:
    """Everything the section says; `shares` are the columns of `few`."""

    tables: Sequence[Table]
    shares: Sequence[float]
    few: Sequence[FewRow]
    labels: Sequence[Listed]
    groups: Sequence[Listed]


def labelled_view(views: Sequence[RunView], datasets: Mapping[str, Evaluated]) -> LabelledView:
    """Tables of all labelled results of some runs; `datasets` by identity."""
    tables = [Table(paper, [_block(paper, asked, views, datasets) for asked in paper.asked]) for paper in TABLES]
    found = [
        (view.name, task, result)
        for task in TASKS
        for view in views
        if (result := view.results.get(task)) is not None and is_labelled(result)
    ]
    several = [(run, task, result) for run, task, result in found if len(result["shares"]) > 1]
    shares = sorted({part["share"] for _, _, result in several for part in result["shares"]}, reverse=True)
    return LabelledView(
        tables,
        shares,
        [_few(run, task, result, shares) for run, task, result in several],
        [_labels(run, task, result) for run, task, result in found if len(result["per_label"]) > 1],
        [_groups(run, task, result) for run, task, result in found if result["subgroups"]],
    )


def _block(paper: PaperTable, asked: Asked, views: Sequence[RunView], datasets: Mapping[str, Evaluated]) -> Block:
    rows: list[Row] = []
    absent: list[Absent] = []
    nowhere = []
    for protocol, how in HOW.items():
        found = [(view.name, _answers(asked, protocol, view, datasets)) for view in views]
        rows += [row for _, answers in found for row in answers]
        lacking = [run for run, answers in found if not answers]
        if len(lacking) == len(views):
            nowhere.append(how)
        elif lacking:
            absent.append(Absent(lacking, [how]))
    if nowhere:
        absent.append(Absent([], nowhere))
    published = [
        (row, {name: score(name, value) for name, value in row.scores.items()}) for row in paper.published(asked)
    ]
    return Block(asked.title, rows, absent, published)


def _answers(asked: Asked, protocol: str, view: RunView, datasets: Mapping[str, Evaluated]) -> list[Row]:
    """What a run measured by a protocol; labels that its dataset lacks were not."""
    found = [(answer, view.results.get(f"{answer.question}-{protocol}")) for answer in asked.answers]
    return [
        _row(view.name, HOW[protocol], answer, result, datasets)
        for answer, result in found
        if result is not None and f"{answer.prefix}accuracy" in result["metrics"]
    ]


def _row(run: str, how: str, answer: Answer, result: Result, datasets: Mapping[str, Evaluated]) -> Row:
    full, prefix = result["shares"][0], answer.prefix
    learned = " ".join(filter(None, (how, answer.remark)))
    return Row(
        run,
        learned + ("" if full["share"] == 1 else f", {100 * full['share']:.3g}% of the labels"),
        {name: _shown(f"{prefix}{name}", result) for name in SCORES if f"{prefix}{name}" in full["mean"]},
        score("accuracy", result["metrics"][f"majority_{prefix}accuracy"]),
        f"{result['videos'][result['scored']]} {result['scored']} videos",
        result["shared_people"],
        datasets[result["dataset"]],
    )


def _shown(name: str, result: Result) -> Shown:
    full, interval = result["shares"][0], result["intervals"].get(name)
    return Shown(
        score(name, full["mean"][name]),
        spread(name, full["std"][name]) if name in full["std"] else "",
        f"{score(name, interval[0])} to {score(name, interval[1])}" if interval else "",
    )


def _few(run: str, task: str, result: Result, shares: Sequence[float]) -> FewRow:
    name = headline_of(task, result).name
    parts = {part["share"]: part for part in result["shares"]}
    cells = [_few_cell(name, parts[share]) if share in parts else None for share in shares]
    return FewRow(task, run, score_title(name), cells)


def _few_cell(name: str, part: Result) -> tuple[Shown, int] | None:
    if name not in part["mean"]:
        return None
    std = part["std"].get(name)
    return Shown(score(name, part["mean"][name]), "" if std is None else spread(name, std)), part["videos"]


def _labels(run: str, task: str, result: Result) -> Listed:
    """The outputs of a task, best first; those that no score could be made of, at the end."""
    columns = ("recall",) if result["kind"] == "class" else ("auc", "accuracy")
    rows = sorted(result["per_label"].items(), key=lambda item: (-item[1].get(columns[0], -1.0), item[0]))
    ends = [(name, row[columns[0]]) for name, row in rows if columns[0] in row]
    told = [f"{len(rows)} labels"]
    if ends and ends[0][1] > ends[-1][1]:
        for side, (name, value) in (("best", ends[0]), ("worst", ends[-1])):
            told.append(f"{side} {name} ({score(columns[0], value)})")
    return Listed(
        task,
        run,
        [score_title(name) for name in columns],
        [(name, f"{row['share']:.1%}", _texts(columns, row)) for name, row in rows],
        told,
    )


def _groups(run: str, task: str, result: Result) -> Listed:
    """Groups of videos, best first within what tells them apart; `summary` has the gap within each of those."""
    by_label: dict[str, list[tuple[str, Result]]] = {}
    for group, told in result["subgroups"].items():
        by_label.setdefault(group.partition("=")[0], []).append((group, told))
    rows, gaps = [], []
    name = headline_of(task, result).name
    for label, members in by_label.items():
        # Groups are compared by a score that all of them have.
        common = {key for key in SCORES if all(key in told["metrics"] for _, told in members)}
        by = first_of(name, dict.fromkeys(common, 0.0))
        ranked = sorted(members, key=lambda member: (-member[1]["metrics"][by], member[0]))
        rows += [(group, str(told["videos"]), _texts(SCORES, told["metrics"])) for group, told in ranked]
        best, worst = (told["metrics"][by] for _, told in (ranked[0], ranked[-1]))
        if len(ranked) > 1:
            ends = f"between {ranked[0][0]} and {ranked[-1][0]}"
            gaps.append(f"{label}: {gap(by, best - worst)} of {score_title(by)} {ends}")
    return Listed(task, run, [score_title(name) for name in SCORES], rows, gaps)


def _texts(names: Sequence[str], scores: Mapping[str, float]) -> list[str]:
    return [score(name, scores[name]) if name in scores else "–" for name in names]
