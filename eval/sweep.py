"""What a sweep found: each variant's scores over the seeds, and how far they are from the first variant's.

Differences are taken seed by seed, so that what a seed makes easy or hard for all variants does not count.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from eval.report.shown import headline_of, judge_of
from eval.results import read_result
from pipeline.checkpoints import list_checkpoints
from pipeline.config.schema import Config
from pipeline.layout import run_store
from pipeline.sweep.plan import Member
from train.status import read_status

_log = logging.getLogger(__name__)

CONFIDENCE = 0.95
Scores = Mapping[str, Mapping[int, float]]
"""A score of each variant, by seed."""


@dataclass(frozen=True)
class Row:
    """One score of one variant.

    Attributes:
        variant: its name.
        seeds: how many seeds have it.
        mean: over the seeds.
        std: with n - 1; None of one seed.
        difference: mean difference from the first variant, over the seeds that both have; None of the first itself.
        interval: 95% t-interval of that; None with fewer than two such seeds.
    """

    variant: str
    seeds: int
    mean: float
    std: float | None
    difference: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class ScoreTable:
    """The first score of a task, for each variant that has one."""

    task: str
    score: str
    rows: Sequence[Row]


def sweep_tables(members: Sequence[Member]) -> list[ScoreTable]:
    """The first score of each task, of the newest checkpoint of each member.

    Scores by several judges can't be compared: of such a task there is no table, and a warning.
    """
    judges: dict[str, set[str]] = {}
    found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for member in members:
        run = run_store(member.cfg)
        for checkpoint in list_checkpoints(run)[-1:]:
            for task in member.cfg.eval.tasks:
                result = read_result(run, checkpoint, task)
                if result is not None:
                    told = headline_of(task, result)
                    judges.setdefault(task, set()).add(judge_of(result))
                    found.setdefault((task, told.name), {}).setdefault(member.variant, {})[member.seed] = told.value
    for task, several in judges.items():
        if len(several) > 1:
            _log.warning(
                "%s was measured by %d judges, and is left out of the sweep's table: give all runs one, with "
                "eval.lipsync.sync.judge",
                *(task, len(several)),
            )
    return [ScoreTable(task, name, compare(scores)) for (task, name), scores in found.items() if len(judges[task]) == 1]


def compare(scores: Scores) -> list[Row]:
    """Rows of one score, the first variant first."""
    first = next(iter(scores))
    return [_row(variant, seeds, scores[first] if variant != first else None) for variant, seeds in scores.items()]


def _row(variant: str, seeds: Mapping[int, float], against: Mapping[int, float] | None) -> Row:
    values = np.array(list(seeds.values()))
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    paired = np.array([value - against[seed] for seed, value in seeds.items() if seed in against] if against else [])
    interval = None
    if len(paired) > 1:
        half = stats.t.ppf((1 + CONFIDENCE) / 2, len(paired) - 1) * paired.std(ddof=1) / np.sqrt(len(paired))
        interval = (float(paired.mean() - half), float(paired.mean() + half))
    difference = float(paired.mean()) if len(paired) else None
    return Row(variant, len(values), float(values.mean()), std, difference, interval)


def is_done(cfg: Config) -> bool:
    """Whether a run has been trained to its end, and its newest checkpoint has a result of each task."""
    run = run_store(cfg)
    status = read_status(run)
    newest = list_checkpoints(run)[-1:]
    return (
        status is not None
        and status.state == "done"
        and bool(newest)
        and all(read_result(run, newest[0], task) is not None for task in cfg.eval.tasks)
    )
