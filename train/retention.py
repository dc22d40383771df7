"""Which published checkpoints stay."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.checkpoints import Checkpoint, delete_checkpoint, list_revisions
from pipeline.config.schema import Config
from pipeline.leases import is_held
from pipeline.storage import NotFound, Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """What a checkpoint must be to stay; one of these is enough.

    Attributes:
        last: among so many newest ones.
        every: of a step that this divides; 0 switches it off.
        best: the best by this metric of an evaluation, ``<task>/<metric>``; empty switches it off.
        best_is: whether the lowest or the highest value is best.
        unevaluated: among so many newest ones that lack a result; 0 where no evaluation is expected.
        tasks: whose results make a checkpoint evaluated.
    """

    last: int
    every: int = 0
    best: str = ""
    best_is: Literal["min", "max"] = "min"
    unevaluated: int = 0
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluations:
    """What is known of checkpoints by name: which have all their results, and their value of the metric."""

    done: frozenset[str] = frozenset()
    values: Mapping[str, float] = field(default_factory=dict)


def retention_of(cfg: Config) -> Retention:
    """The retention that a configuration asks for."""
    train = cfg.train
    return Retention(
        train.keep_last, train.keep_every, train.keep_best, train.keep_best_is, train.keep_unevaluated, cfg.eval.tasks
    )


def to_retire(published: Sequence[Checkpoint], rule: Retention, found: Evaluations) -> list[Checkpoint]:
    """The checkpoints to withdraw, in the given order.

    Args:
        published: every revision of every step, ascending. A revision that a later one of its step replaced goes.
        rule: what stays.
        found: what evaluation says of them. Of equally good ones the latest is the best.
    """
    current = list({checkpoint.step: checkpoint for checkpoint in published}.values())
    kept = current[-rule.last :]
    kept += [checkpoint for checkpoint in current if rule.every and checkpoint.step % rule.every == 0]
    kept += filter(None, [best_of(current, rule, found)])
    if rule.unevaluated:
        kept += [checkpoint for checkpoint in current if checkpoint.name not in found.done][-rule.unevaluated :]
    names = {checkpoint.name for checkpoint in kept}
    return [checkpoint for checkpoint in published if checkpoint.name not in names]


def best_of(current: Sequence[Checkpoint], rule: Retention, found: Evaluations) -> Checkpoint | None:
    """The best by the rule's metric, the latest of equally good ones; None where none was measured."""
    measured = [checkpoint for checkpoint in current if checkpoint.name in found.values]
    if not rule.best or not measured:
        return None
    sign = 1 if rule.best_is == "max" else -1
    return max(measured, key=lambda checkpoint: (sign * found.values[checkpoint.name], checkpoint.step))


def withdraw_old(run: Store, rule: Retention) -> None:
    """Withdraw what need not stay; says so where that was never evaluated, although it was to be."""
    published = list_revisions(run)
    found = read_evaluations(run, published, rule)
    current = {checkpoint.step: checkpoint.revision for checkpoint in published}
    leases = [item.key for item in run.list("evals/") if item.key.endswith(".lease")]
    for checkpoint in to_retire(published, rule, found):
        if any(is_held(run, key) for key in leases if key.split("/")[1] == checkpoint.name):
            continue  # it is being evaluated: the next publication looks at it again
        replaced = checkpoint.revision < current[checkpoint.step]
        if rule.unevaluated and not replaced and checkpoint.name not in found.done:
            _log.warning(
                "checkpoint %s goes without all its results: more than train.keep_unevaluated=%d wait for evaluation",
                *(checkpoint.name, rule.unevaluated),
            )
        delete_checkpoint(run, checkpoint)


def read_evaluations(run: Store, published: Sequence[Checkpoint], rule: Retention) -> Evaluations:
    """The results that lie in the run's folder, as far as the rule asks for them."""
    if not (rule.best or rule.unevaluated):
        return Evaluations()
    keys = {item.key for item in run.list("evals/")}
    done = [c.name for c in published if all(f"evals/{c.name}/{task}.json" in keys for task in rule.tasks)]
    task, _, metric = rule.best.partition("/")
    values = {}
    for name in (checkpoint.name for checkpoint in published):
        key = f"evals/{name}/{task}.json"
        value = _value(run, key, metric) if rule.best and key in keys else None
        if value is not None:
            values[name] = value
    return Evaluations(frozenset(done), values)


def _value(run: Store, key: str, metric: str) -> float | None:
    """A metric of a result, None where it has none."""
    try:
        value = float(json.loads(run.read(key))["metrics"][metric])
    except (NotFound, ValueError, TypeError, KeyError):
        value = math.nan
    if math.isfinite(value):
        return value
    _log.warning("%s/%s has no number '%s', which train.keep_best asks for", run.url, key, metric)
    return None
