"""Retention: what stays and what goes, whatever lies there."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checkpoints import Checkpoint, list_checkpoints, publish_checkpoint
from pipeline.storage import Store, open_store
from pipeline.storage.manifest import to_json
from train.retention import Evaluations, Retention, to_retire, withdraw_old

TASKS = ("reconstruction", "track-probe")


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Checkpoint], Retention, Evaluations]:
    """Checkpoints of some steps with some revisions each, a rule, and some results."""
    revisions = draw(st.dictionaries(st.integers(1, 40), st.sets(st.integers(0, 3), min_size=1), max_size=12))
    published = [Checkpoint(step, r, "", (), {}) for step in sorted(revisions) for r in sorted(revisions[step])]
    small = st.integers(0, 6)
    best = draw(st.sampled_from(["", "reconstruction/mse"]))
    rule = Retention(draw(st.integers(1, 6)), draw(small), best, draw(st.sampled_from(["min", "max"])), draw(small))
    names = st.sampled_from([checkpoint.name for checkpoint in published] or ["none"])
    values = draw(st.dictionaries(names, st.sampled_from([0.5, 1.0, 2.0])))
    return published, rule, Evaluations(draw(st.frozensets(names)), values)


@given(situations())
def test_what_stays_and_what_goes(situation: tuple[list[Checkpoint], Retention, Evaluations]) -> None:
    published, rule, found = situation
    gone = to_retire(published, rule, found)
    kept = [checkpoint for checkpoint in published if checkpoint not in gone]
    current = [c for c in published if c.revision == max(o.revision for o in published if o.step == c.step)]
    assert all(checkpoint in current for checkpoint in kept)
    assert kept[-rule.last :] == current[-rule.last :]
    for checkpoint in current:
        if rule.every and checkpoint.step % rule.every == 0:
            assert checkpoint in kept
    measured = [found.values[c.name] for c in current if c.name in found.values]
    if rule.best and measured:
        best = min(measured) if rule.best_is == "min" else max(measured)
        assert best in [found.values.get(checkpoint.name) for checkpoint in kept]
    waiting = [checkpoint for checkpoint in current if checkpoint.name not in found.done]
    assert [c for c in kept if c in waiting][-rule.unevaluated :] == waiting[
        -rule.unevaluated :
    ] or not rule.unevaluated
    for_ever = sum(bool(rule.every) and checkpoint.step % rule.every == 0 for checkpoint in current)
    assert len(kept) <= rule.last + for_ever + bool(rule.best) + rule.unevaluated
    assert to_retire(kept, rule, found) == []


@pytest.fixture
def run(tmp_path: Path) -> Store:
    """A run with checkpoints of steps 1 to 6."""
    run = open_store(str(tmp_path / "run"))
    for step in range(1, 7):
        publish_checkpoint(run, step, f"checkpoints/step-{step:08d}/a", [], {})
    return run


def evaluate(run: Store, step: int, mse: float, *tasks: str) -> None:
    for task in tasks:
        run.create(f"evals/step-{step:08d}.r0/{task}.json", to_json({"metrics": {"mse": mse}}))


def steps(run: Store) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(run)]


def test_the_best_stays_once_its_results_are_in(run: Store) -> None:
    for step, mse in ((1, 0.3), (2, 0.1), (3, 0.2)):
        evaluate(run, step, mse, "reconstruction")
    withdraw_old(run, Retention(last=1, every=4, best="reconstruction/mse"))
    assert steps(run) == [2, 4, 6]
    evaluate(run, 6, 0.05, "reconstruction")
    withdraw_old(run, Retention(last=1, every=4, best="reconstruction/mse"))
    assert steps(run) == [4, 6]


def test_results_without_the_metric_are_told_and_pass_for_none(run: Store, caplog: pytest.LogCaptureFixture) -> None:
    evaluate(run, 1, 0.3, "reconstruction")
    run.write("evals/step-00000002.r0/reconstruction.json", b"damaged")
    run.write("evals/step-00000003.r0/reconstruction.json", b'{"metrics": {"mse": NaN}}')
    withdraw_old(run, Retention(last=1, best="reconstruction/mse", best_is="max"))
    assert steps(run) == [1, 6]
    for step in (2, 3):
        assert f"evals/step-0000000{step}.r0/reconstruction.json has no number 'mse'" in caplog.text


def test_what_waits_for_evaluation_stays_up_to_a_number(run: Store, caplog: pytest.LogCaptureFixture) -> None:
    evaluate(run, 1, 0.1, *TASKS)
    evaluate(run, 2, 0.1, TASKS[0])
    evaluate(run, 5, 0.1, *TASKS)
    with caplog.at_level(logging.WARNING):
        withdraw_old(run, Retention(last=1, unevaluated=3, tasks=TASKS))
    assert steps(run) == [3, 4, 6]
    assert [record.getMessage().split()[1] for record in caplog.records] == ["step-00000002.r0"]
    evaluate(run, 3, 0.1, *TASKS)
    caplog.clear()
    withdraw_old(run, Retention(last=1, unevaluated=3, tasks=TASKS))
    assert steps(run) == [4, 6]
    assert caplog.text == ""
