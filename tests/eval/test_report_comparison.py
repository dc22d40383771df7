"""Several runs on one report: differences, ablations, and scores by masking ratio."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from drawn_runs import MakeRun, publish, small_config
from pages import Page
from results import binary_result, put_result

from eval.report.charts import Series, line_chart
from eval.report.comparison import differing
from eval.report.page import write_report
from pipeline.config.schema import Config


def report(cfgs: Sequence[Config], tmp_path: Path) -> Page:
    return Page(write_report(cfgs, tmp_path / "report.html", progress=False).read_text("utf-8"))


def test_one_run_has_nothing_to_be_compared_with(make_run: MakeRun, tmp_path: Path) -> None:
    page = report([make_run()], tmp_path)
    assert "not run: the report is of one run" in page.texts["comparison"]
    assert "comparison" not in page.rows


def test_runs_are_compared_with_the_first(make_run: MakeRun, tmp_path: Path) -> None:
    cfgs = [make_run(f"run.name={name}", "data.mask.ratio=0.75") for name in ("one", "two", "three")]
    repeated = [{"share": 1.0, "videos": 16, "mean": {"accuracy": 0.5, "auc": 0.5}, "std": {"auc": 0.125}}]
    for cfg, auc in zip(cfgs, (0.75, 0.5, 0.875), strict=True):
        put_result(cfg, "emotion-linear", binary_result(auc, shares=repeated))
    put_result(cfgs[0], "deepfake-knn", binary_result(0.5, question="deepfake"))
    put_result(cfgs[1], "deepfake-knn", binary_result(0.625, question="deepfake", dataset="1" * 64, eval={"seed": 1}))
    for cfg, auc, dataset in zip(cfgs[1:], (0.5, 0.625), "01", strict=True):
        put_result(cfg, "appearance-knn", binary_result(auc, question="appearance", dataset=dataset * 64))
        put_result(cfg, "action-knn", binary_result(auc, question="action"))
    put_result(cfgs[1], "track-probe", {"schema": 1, "metrics": {"balanced_accuracy": 0.25, **_PROBE}, **_TRACKS})
    page = report(cfgs, tmp_path)
    assert [row.cells for row in page.rows["comparison"]] == [
        ["Task", "Score", "one step 20", "two step 20", "three step 20"],
        ["track-probe", "balanced accuracy against two", "not run", "25.00%", "not run"],
        ["appearance-knn", "AUC against two", "not run", "0.5000", "0.6250 other dataset"],
        ["action-knn", "AUC against two", "not run", "0.5000", "0.6250 +0.1250"],
        ["emotion-linear", "AUC", "0.7500 ± 0.1250", "0.5000 ± 0.1250 −0.2500", "0.8750 ± 0.1250 +0.1250"],
        ["deepfake-knn", "AUC", "0.5000", "0.6250 other dataset and settings", "not run"],
    ]
    assert "The runs differ in no setting that changes a result" in page.texts["comparison"]
    assert "By masking ratio" not in page.texts["comparison"]


_PROBE = {
    "accuracy": 0.25,
    **{f"{prefix}_{name}": 0.5 for prefix in ("untrained", "pixels") for name in ("accuracy", "balanced_accuracy")},
    **{"majority_accuracy": 0.5, "chance_balanced_accuracy": 0.5},
}
_TRACKS = {"train_windows": {"a": 1}, "test_windows": {"a": 1}, "classes": ["a"], "left_out": [], "confusion": {}}


def test_an_ablation_has_the_settings_that_differ_and_what_they_lead_to(make_run: MakeRun, tmp_path: Path) -> None:
    cfgs = [
        make_run(f"run.name={name}", f"data.mask.strategy={strategy}", f"critic.weight={weight}")
        for name, strategy, weight in (("full", "fasking", 0.01), ("tube", "tube", 0.01), ("plain", "tube", 0))
    ]
    for cfg, auc in zip(cfgs, (0.75, 0.5, 0.25), strict=True):
        put_result(cfg, "emotion-linear", binary_result(auc))
    rows = [row.cells for row in report(cfgs, tmp_path).rows["comparison"]]
    start = rows.index(["Run", "data.mask.strategy", "critic.weight", "emotion-linear, AUC"])
    assert rows[start + 1 :] == [
        ["full", "fasking", "0.01", "0.7500"],
        ["tube", "tube", "0.01", "0.5000"],
        ["plain", "tube", "0.0", "0.2500"],
    ]


def test_a_model_is_told_by_what_it_was_trained_with(make_run: MakeRun, tmp_path: Path) -> None:
    """Not by what its configuration says by now: two models, and one configuration that has changed since."""
    cfgs = []
    for name, strategy, ratio, auc in (("one", "fasking", 0.9, 0.75), ("two", "random", 0.75, 0.5)):
        masks = (f"data.mask.strategy={strategy}", f"data.mask.ratio={ratio}", "critic.weight=0.5")
        now = ("data.mask.strategy=tube", "data.mask.ratio=0.5", "critic.weight=0")
        cfgs.append(make_run(f"run.name={name}", *now, steps=()))
        publish(cfgs[-1], 20, tmp_path / name, trained=make_run(f"run.name={name}", *masks, steps=()))
        put_result(cfgs[-1], "emotion-linear", binary_result(auc))
    page = report(cfgs, tmp_path)
    assert "Masking fasking, 90% hidden Critic weight 0.5," in page.text
    assert "Fasking (used in this run)" in page.texts["masks"]
    assert "Tube (used in this run)" not in page.text
    rows = [row.cells for row in page.rows["comparison"]]
    start = rows.index(["Run", "data.mask.strategy", "data.mask.ratio", "emotion-linear, AUC"])
    assert rows[start + 1 : start + 3] == [["one", "fasking", "0.9", "0.7500"], ["two", "random", "0.75", "0.5000"]]
    assert "emotion-linear: 0.75 at share hidden 0.9" in (tmp_path / "report.html").read_text("utf-8")


def test_runs_that_differ_in_much_are_no_ablation(make_run: MakeRun, tmp_path: Path) -> None:
    many = [f"critic.{key}" for key in ("weight=0.5", "clip=0.5", "penalty=5", "steps=2")]
    many += [f"train.{key}" for key in ("seed=7", "base_lr=0.1", "warmup=0.5", "weight_decay=0.5", "steps=9")]
    page = report([make_run("run.name=one"), make_run("run.name=two", *many, steps=())], tmp_path)
    assert "The runs differ in 9 settings, more than the 8 of an ablation: critic.weight, " in page.texts["comparison"]


def test_scores_are_drawn_by_masking_ratio(make_run: MakeRun, tmp_path: Path) -> None:
    """Two seeds at one ratio count as their mean; what was measured on other data is left out."""
    cfgs = []
    for name, ratio, auc, dataset in (
        ("a", 0.9, 0.75, "0"),
        ("b", 0.9, 0.25, "0"),
        ("c", 0.5, 0.25, "0"),
        ("d", 0.75, 0.875, "1"),
    ):
        cfgs.append(make_run(f"run.name={name}", f"data.mask.ratio={ratio}", f"train.seed={len(cfgs)}"))
        put_result(cfgs[-1], "emotion-linear", binary_result(auc, dataset=dataset * 64))
    page = report(cfgs, tmp_path)
    assert "By masking ratio" in page.texts["comparison"]
    assert "The runs differ in other settings too" in page.texts["comparison"]
    drawn = re.findall(r"<title>(emotion-linear: [^<]*)", (tmp_path / "report.html").read_text("utf-8"))
    assert drawn == ["emotion-linear: 0.25 at share hidden 0.5", "emotion-linear: 0.5 at share hidden 0.9"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), {}),
        (("run.name=other", "tracking.uri=sqlite:///x.db", "launch.threads=2", "data.threads=3", "eval.batch=2"), {}),
        (("data.mask.ratio=0.5",), {"data.mask.ratio": ["0.9", "0.5"]}),
        (("train.betas=[0.5,0.75]",), {"train.betas": ["0.9, 0.95", "0.5, 0.75"]}),
        (
            ("train.epochs=3", "model.init=hub"),
            {"model.init": ["–", "hub"], "train.steps": ["150", "–"], "train.epochs": ["–", "3"]},
        ),
        (("eval.probe.lr=0.5", "eval.tasks=[track-probe]"), {"eval.probe.lr": ["0.0001", "0.5"]}),
    ],
)
def test_only_settings_that_change_a_result_differ(
    tmp_path: Path, overrides: Sequence[str], expected: dict[str, list[str]]
) -> None:
    assert differing([small_config(tmp_path), small_config(tmp_path / "elsewhere", *overrides)]) == expected


def test_a_marked_line_has_a_dot_on_every_point() -> None:
    points = [(0.5, 1.0), (0.75, 3.0), (0.9, 2.0)]
    marked = line_chart("t", [Series("a", points, marked=True)], "share hidden")
    assert marked.count("<circle") == 3
    assert ">share hidden</text>" in marked
    assert line_chart("t", [Series("a", points)]).count("<circle") == 1
