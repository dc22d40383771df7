"""Several runs against each other: their scores, the settings that they differ in, and scores by masking ratio."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from markupsafe import Markup

from eval.report.charts import Series, line_chart
from eval.report.runs import RunView
from eval.report.shown import NETWORKS, Told, difference, headline_of, judge_of, score, score_title, spread
from eval.tasks.registry import TASKS
from pipeline.config.schema import Config
from pipeline.tracking import flatten

MOST_KEYS = 8
"""More differing settings than this are no ablation, and no table."""

# Beginnings of keys that change no result: where a run lies, whom it tells, which machine it is on, how often it saves;
# and where it is measured, which results say themselves.
_NOISE = (
    *("run.", "storage.", "tracking.", "launch.", "corpus.path"),
    *("preprocess.workers", "preprocess.network_", "preprocess.ray_address", "preprocess.object_store_mb"),
    *("data.threads", "data.prefetch", "data.read_ahead", "data.cache_", "data.fetch", "data.connections"),
    *("train.checkpoint_every", "train.keep_", "train.log_every", "train.val_", "train.launcher", "train.processes"),
    *("train.accept_dataset_change", "train.start_timeout", "train.hang_timeout", "train.grace"),
    *("eval.tasks", "eval.datasets.", "eval.batch", "eval.poll_seconds", "eval.lease_seconds", "eval.features."),
    *("eval.finetune.processes", "eval.finetune.threads", "eval.finetune.recompute", "eval.lipsync.threads"),
)

Result = Mapping[str, Any]

# Results that differ in one of these answer different questions; in words.
_SAME = {"dataset": "dataset", "eval": "settings", "seed": "seed", "mask": "mask"}


@dataclass(frozen=True)
class Cell:
    """A run's score of a task in text, its spread, and how far it is from the first result that there is.

    ``other`` says what it differs in from that where they answer different questions.
    """

    text: str
    spread: str = ""
    difference: str = ""
    other: str = ""


@dataclass(frozen=True)
class TaskRow:
    """A task with the name of its headline score, and a cell of each run; None where it was not run.

    ``against`` names the run that the others are compared with where it is not the first.
    """

    task: str
    score: str
    cells: Sequence[Cell | None]
    against: str = ""


@dataclass(frozen=True)
class RatioChart:
    """A task's headline score against the share of cubes hidden in training."""

    task: str
    score: str
    svg: Markup


@dataclass(frozen=True)
class Comparison:
    """Everything the section says of several runs.

    Attributes:
        tasks: headline scores.
        differing: value of each differing setting, by its name and then by run.
        ratios: charts, where runs differ in the masking ratio.
    """

    tasks: Sequence[TaskRow]
    differing: Mapping[str, Sequence[str]]
    ratios: Sequence[RatioChart]

    @property
    def ablation(self) -> bool:
        """Whether the runs differ in few enough settings for a table."""
        return 0 < len(self.differing) <= MOST_KEYS


def compare(views: Sequence[RunView]) -> Comparison:
    """Compare some runs, in each task with the first that has a result."""
    tasks = [task for task in TASKS if any(task in view.results for view in views)]
    rows = [_task_row(task, views) for task in tasks]
    return Comparison(rows, differing([view.cfg for view in views]), _ratio_charts(tasks, views))


def differing(cfgs: Sequence[Config]) -> dict[str, list[str]]:
    """Settings that some configurations differ in, without those that change no result.

    Returns:
        Values in the order of the configurations, by dotted key in the order of the schema; "–" where a configuration
        has no such key.
    """
    flat = [flatten(cfg.model_dump(mode="json")) for cfg in cfgs]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if not key.startswith(_NOISE)]
    rows = {key: [_value(one.get(key)) for one in flat] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _value(value: Any) -> str:
    if value is None or value == "":
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def unlike(one: Result, other: Result) -> str:
    """What makes two results of a task answers to different questions; empty where nothing does."""
    differs = [words for name, words in _SAME.items() if _of(one, name) != _of(other, name)]
    if judge_of(one) != judge_of(other):
        differs.append("judge")
    return " and ".join(differs)


def _of(result: Result, name: str) -> Any:
    """A part of a result; of the settings of lip synchronisation without the files of networks, whatever is in them."""
    part = result.get(name)
    if name != "eval" or not isinstance(part, Mapping) or "lipsync" not in part:
        return part
    sync = {key: value for key, value in part["lipsync"]["sync"].items() if key not in NETWORKS}
    return {**part, "lipsync": {**part["lipsync"], "sync": sync}}


def _task_row(task: str, views: Sequence[RunView]) -> TaskRow:
    told = [
        (headline_of(task, view.results[task]), view.results[task]) if task in view.results else None for view in views
    ]
    [(first, reference), *_] = [(one, view) for one, view in zip(told, views, strict=True) if one]
    cells = [_cell(one, first) if one else None for one in told]
    return TaskRow(task, score_title(first[0].name), cells, "" if reference is views[0] else reference.name)


def _cell(one: tuple[Told, Result], first: tuple[Told, Result]) -> Cell:
    told, result = one
    text, std = score(told.name, told.value), "" if told.std is None else spread(told.name, told.std)
    if one is first:
        return Cell(text, std)
    if other := unlike(first[1], result):
        return Cell(text, std, other=f"other {other}")
    return Cell(text, std, difference(told.name, told.value - first[0].value))


def _ratio_charts(tasks: Sequence[str], views: Sequence[RunView]) -> list[RatioChart]:
    charts = []
    for task in tasks:
        found = [(view.cfg.data.mask.ratio, result) for view in views if (result := view.results.get(task)) is not None]
        by_ratio: dict[float, list[float]] = {}
        for ratio, result in found:
            if not unlike(found[0][1], result):
                by_ratio.setdefault(ratio, []).append(headline_of(task, result).value)
        if len(by_ratio) > 1:
            told = score_title(headline_of(task, found[0][1]).name)
            series = Series(task, [(ratio, fmean(by_ratio[ratio])) for ratio in sorted(by_ratio)], marked=True)
            charts.append(RatioChart(task, told, line_chart(f"{task}: {told}", [series], "share hidden")))
    return charts
