"""Sweeps: which runs they are, and that all of them are run, once, whatever fails on the way."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from labelled import write_labelled
from training import marlin

from pipeline.errors import UsageError
from pipeline.storage import open_store
from pipeline.sweep.plan import load_sweep, members_of, sweep_names

HERE = ("storage.root=/nowhere",)


def written(folder: Path, tree: Mapping[str, Any]) -> str:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(dict(tree), sort_keys=False))
    return str(path)


def test_every_variant_has_every_seed_and_seeds_come_whole(tmp_path: Path) -> None:
    variants = {"plain": [], "wgan": ["critic.weight=0.5"]}
    source = written(tmp_path, {"name": "s", "base": "demo", "variants": variants, "seeds": [3, 7]})
    members = members_of(load_sweep(source, [*HERE, "train.steps=9"]))
    assert [(m.variant, m.seed, m.cfg.run.name) for m in members] == [
        ("plain", 3, "s-plain-s3"),
        ("wgan", 3, "s-wgan-s3"),
        ("plain", 7, "s-plain-s7"),
        ("wgan", 7, "s-wgan-s7"),
    ]
    assert [m.cfg.train.seed for m in members] == [3, 3, 7, 7]
    assert [m.cfg.critic.weight for m in members] == [0.01, 0.5, 0.01, 0.5]
    assert all(m.cfg.train.steps == 9 for m in members)


def test_a_grid_is_all_combinations(tmp_path: Path) -> None:
    grid = {"data.mask.ratio": [0.5, 0.9], "data.mask.strategy": ["tube", "fasking"]}
    members = members_of(load_sweep(written(tmp_path, {"name": "g", "base": "demo", "grid": grid}), HERE))
    assert [m.variant for m in members] == [f"ratio-{r}-strategy-{s}" for r in (0.5, 0.9) for s in ("tube", "fasking")]
    assert [(m.cfg.data.mask.ratio, m.cfg.data.mask.strategy) for m in members] == [
        (0.5, "tube"),
        (0.5, "fasking"),
        (0.9, "tube"),
        (0.9, "fasking"),
    ]


def test_the_ready_sweeps_are_the_ablations_of_the_paper() -> None:
    assert sweep_names() == ["encoder", "masking", "modules", "ratio"]
    modules = members_of(load_sweep("modules", [*HERE, "seeds=[0]"]))
    assert {m.variant: (m.cfg.data.mask.strategy, m.cfg.critic.weight > 0) for m in modules} == {
        "videomae": ("tube", False),
        "fasking": ("fasking", False),
        "critic": ("tube", True),
        "marlin": ("fasking", True),
    }
    masking = members_of(load_sweep("masking", [*HERE, "base=demo"]))
    assert {m.cfg.data.mask.strategy for m in masking} == {"fasking", "tube", "frame", "random"}
    assert {m.cfg.critic.weight for m in masking} == {0.01}
    assert [m.cfg.model.size for m in members_of(load_sweep("encoder", HERE))] == ["base", "small", "large"]
    assert len(members_of(load_sweep("ratio", HERE))) == 7


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"name": "s", "base": "demo"}, "needs variants or a grid"),
        ({"name": "s", "base": "demo", "variants": {"a": []}, "grid": {"train.steps": [1]}}, "and not both"),
        ({"name": "s", "base": "demo", "variants": {"a": []}, "seeds": [1, 1]}, "two runs would be named s-a-s1"),
        ({"name": "s", "base": "demo", "variants": {"a": ["critic.wait=1"]}}, "unknown key 'critic.wait'"),
        ({"name": "s", "base": "demo", "variants": {"a": []}, "seed": 1}, "seed: Extra inputs"),
        ({"base": "demo", "variants": {"a": []}}, "name: Field required"),
    ],
)
def test_what_is_no_sweep_is_named(tmp_path: Path, tree: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        members_of(load_sweep(written(tmp_path, tree), HERE))


@pytest.mark.slow
def test_a_sweep_tries_again_what_failed_and_compares_what_it_found(tmp_path: Path) -> None:
    corpus, root, out, labels = (tmp_path / name for name in ("corpus", "storage", "out", "labels"))
    drawn = marlin("samples", "draw", "celebv-hq", str(corpus), "--videos", "10", "--frames", "32", "--size", "64")
    assert drawn.returncode == 0, drawn.stderr
    small = ["preprocess.size=32", "preprocess.patch=8", "model.patch=8", "data.threads=1", "train.steps=2"]
    small += ["train.checkpoint_every=2", "train.val_every=2", "train.global_batch=2", "train.micro_batch=2"]
    small += ["preprocess.detector=none", "preprocess.parser=given", "preprocess.holdout=0", "eval.bootstrap=0"]
    place = [f"storage.root={root}", "corpus.kind=celebv-hq", f"corpus.path={corpus}", "corpus.splits=splits"]
    late = [f"eval.datasets.emotion={labels}", "eval.tasks=[reconstruction, emotion-knn]"]
    variants = {"plain": ["eval.tasks=[reconstruction]"], "late": late}
    tree = {"name": "two", "base": "demo", "overrides": [*small, *place], "variants": variants, "seeds": [0]}
    command = ("sweep", "-c", written(tmp_path, tree), "-o", str(out), "workers=2")

    ended = marlin(*command)
    assert ended.returncode == 1
    assert "1 of 2 runs failed, as two-late-s0 (" in ended.stderr
    assert f"{labels} holds no finished dataset" in ended.stderr
    write_labelled(open_store(str(labels)), "emotion")
    before = {path: path.stat().st_mtime for path in (root / "runs" / "two-plain-s0").rglob("*") if path.is_file()}
    ended = marlin(*command)
    assert ended.returncode == 0, ended.stderr
    assert {path: path.stat().st_mtime for path in before} == before
    page = (out / "report.html").read_text("utf-8")
    assert 'id="sweep"' in page
    assert "emotion-knn" in page

    ids = [
        json.loads((root / "runs" / f"two-{name}" / "mlflow.json").read_text())["run_id"]
        for name in ("plain-s0", "late-s0")
    ]
    parent = json.loads((root / "sweeps" / "two" / "mlflow.json").read_text())["run_id"]
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    assert {client.get_run(run).data.tags["mlflow.parentRunId"] for run in ids} == {parent}

    other = marlin(*command, "train.steps=4")
    assert other.returncode == 2
    assert "began with another configuration of two-late-s0" in other.stderr
