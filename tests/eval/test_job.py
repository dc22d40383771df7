"""Evaluation of published checkpoints through the job's door."""

import json
import logging
from pathlib import Path

import pytest
from drawn_runs import MakeRun, publish, small_config
from synthetic import DrawnTrack, write_dataset
from training import write_config

from eval.job import check_tasks, run_eval
from eval.tasks.context import Measured, TaskContext
from eval.tasks.registry import TASKS
from pipeline.checkpoints import list_checkpoints
from pipeline.config.load import load_config, override
from pipeline.config.schema import MixPart
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import dataset_store, run_store
from pipeline.storage.manifest import to_json
from pipeline.tracking import metric_history


def test_results_are_published_once_and_reused(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = make_run()
    run = run_store(cfg)
    first = run_eval(cfg, progress=False)
    key = "evals/step-00000020.r0/track-probe.json"
    stored = run.read(key)
    assert stored == to_json(first["track-probe"])

    def never(context: TaskContext) -> Measured:
        raise AssertionError("a finished task ran again")

    for task in cfg.eval.tasks:
        monkeypatch.setattr(TASKS[task], "run", never)
    assert run_eval(cfg, progress=False) == first
    assert run.read(key) == stored


def test_a_result_says_what_it_measured(make_run: MakeRun) -> None:
    cfg = make_run("eval.seed=3")
    results = run_eval(cfg, progress=False)
    [published] = list_checkpoints(run_store(cfg))
    sha256 = {entry.name: entry.sha256 for entry in published.files}["model.safetensors"]
    for task, result in results.items():
        assert result["schema"] == 1
        assert result["task"] == task
        assert result["seed"] == 3
        assert result["eval"]["seed"] == 3
        assert result["checkpoint"] == {"name": "step-00000020.r0", "step": 20, "sha256": sha256}
        assert result["dataset"] == published.info["dataset"]
        assert "torch" in result["versions"]
        assert all(isinstance(value, float) for value in result["metrics"].values())
    probe = results["track-probe"]
    assert probe["eval"] == {"seed": 3, "window_stride": 8}
    assert probe["classes"] == ["anna.mp4 · track 0", "berta.mp4 · track 0"]
    assert probe["test_windows"] == {"anna.mp4 · track 0": 3, "berta.mp4 · track 0": 3}
    assert probe["metrics"]["majority_accuracy"] == 0.5
    assert probe["metrics"]["pixels_accuracy"] == 1.0  # two colours of background
    assert results["reconstruction"]["clips"] == 2
    assert metric_history(cfg, run_store(cfg), "eval/reconstruction/mse") == [
        (20, pytest.approx(results["reconstruction"]["metrics"]["mse"]))
    ]


def test_the_newest_or_a_named_checkpoint_is_taken(make_run: MakeRun) -> None:
    cfg = make_run("eval.tasks=[reconstruction]", steps=(20, 40))
    assert run_eval(cfg, progress=False)["reconstruction"]["checkpoint"]["step"] == 40
    assert run_eval(cfg, checkpoint="20", progress=False)["reconstruction"]["checkpoint"]["step"] == 20
    by_name = run_eval(cfg, checkpoint="step-00000040.r0", progress=False)
    assert by_name["reconstruction"]["checkpoint"]["step"] == 40


def test_reconstruction_repeats_exactly(make_run: MakeRun) -> None:
    cfg = make_run("eval.tasks=[reconstruction]")
    first = run_eval(cfg, progress=False)
    run_store(cfg).delete("evals/step-00000020.r0/reconstruction.json")
    assert run_eval(cfg, progress=False)["reconstruction"]["metrics"] == first["reconstruction"]["metrics"]


def test_tasks_that_the_data_cannot_serve_are_refused_before_training(tmp_path: Path) -> None:
    cfg = small_config(tmp_path)
    write_dataset(dataset_store(cfg), [DrawnTrack("a.mp4", val=()), DrawnTrack("b.mp4", val=())])
    with pytest.raises(MarlinError, match=r"no held-out samples: .* preprocess.holdout"):
        check_tasks(cfg)
    check_tasks(small_config(tmp_path, "eval.tasks=[]"))


def test_a_faster_job_wins(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = make_run("eval.tasks=[reconstruction]")
    theirs = {"schema": 1, "task": "reconstruction", "metrics": {"mse": 0.5}}

    def overtaken(context: TaskContext) -> Measured:
        run_store(cfg).create("evals/step-00000020.r0/reconstruction.json", to_json(theirs))
        return Measured({"metrics": {"mse": 0.25}})

    monkeypatch.setattr(TASKS["reconstruction"], "run", overtaken)
    assert run_eval(cfg, progress=False) == {"reconstruction": theirs}


def test_a_result_of_another_question_is_kept_and_named(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    cfg = make_run("eval.tasks=[reconstruction]")
    run_eval(cfg, progress=False)
    other = cfg.model_copy(update={"eval": cfg.eval.model_copy(update={"seed": 9})})
    with caplog.at_level(logging.WARNING):
        assert run_eval(other, progress=False)["reconstruction"]["seed"] == 0
    assert "reconstruction.json answers another eval and seed" in caplog.text


def test_how_features_are_made_is_no_question_of_a_result(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    cfg = make_run("eval.tasks=[reconstruction]")
    run_eval(cfg, progress=False)
    run_eval(override(cfg, ["eval.features.windows=official", "eval.features.stride=3"]), progress=False)
    assert "answers another" not in caplog.text


def test_missing_checkpoints_are_named(make_run: MakeRun) -> None:
    cfg = make_run(steps=())
    with pytest.raises(MarlinError, match="no published checkpoint: train it first"):
        run_eval(cfg, progress=False)
    cfg = make_run(steps=(20,))
    with pytest.raises(MarlinError, match=r"no checkpoint '30'; it has step-00000020\.r0"):
        run_eval(cfg, checkpoint="30", progress=False)


def test_a_run_of_a_mix_is_measured_on_the_dataset_that_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    plain = make_run("eval.tasks=[reconstruction]", steps=())
    url = dataset_store(plain).url
    parts = (MixPart(dataset=url, weight=2), MixPart(dataset="s3://gone/elsewhere", weight=1))
    mixed = plain.model_copy(update={"data": plain.data.model_copy(update={"mix": parts})})
    publish(plain, 20, tmp_path / "checkpoint", trained=mixed)
    with pytest.raises(
        UsageError, match=r"data\.mix names several datasets, and one is needed here: add data\.dataset"
    ):
        run_eval(mixed)
    named = load_config(write_config(mixed, tmp_path / "mixed.yaml"), [f"data.dataset='{url}'"])
    result = run_eval(named, progress=False)["reconstruction"]
    assert result["dataset"] == load_dataset(dataset_store(plain)).identity


def test_a_damaged_model_is_refused(make_run: MakeRun) -> None:
    cfg = make_run()
    run = run_store(cfg)
    [published] = list_checkpoints(run)
    key = f"{published.prefix}/model.safetensors"
    data = bytearray(run.read(key))
    data[-1] ^= 1
    run.write(key, bytes(data))
    with pytest.raises(MarlinError, match=r"model\.safetensors is damaged"):
        run_eval(cfg, progress=False)
    assert not list(run.list("evals/"))


def test_a_probe_without_two_tracks_says_what_is_needed(make_run: MakeRun) -> None:
    cfg = make_run("eval.tasks=[track-probe]", tracks=[DrawnTrack("anna.mp4"), DrawnTrack("berta.mp4", val=())])
    with pytest.raises(MarlinError, match="at least two tracks"):
        run_eval(cfg, progress=False)


def test_a_result_of_a_newer_version_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    cfg = make_run("eval.tasks=[reconstruction]")
    run_store(cfg).write("evals/step-00000020.r0/reconstruction.json", json.dumps({"schema": 2}).encode())
    with pytest.raises(MarlinError, match="schema 2"):
        run_eval(cfg, progress=False)
