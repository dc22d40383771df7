"""Training runs on a drawn dataset: golden losses, published checkpoints, and continuing after every kind of end."""

import itertools
import json
import logging
import math
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from drawn import Drawn, drawn_unparsed
from mlflow import MlflowClient
from synthetic import DrawnTrack, write_dataset
from torch.optim import AdamW
from training import (
    MakeTraining,
    interrupted,
    weights,
)

from eval.loading import open_checkpoint
from pipeline.checkpoints import list_checkpoints
from pipeline.config.schema import Config, MixPart
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import run_store
from pipeline.storage import Unavailable, open_store
from pipeline.tracking import metric_history
from train.data.batch import Batch
from train.data.plan import TrainPlan
from train.export import load_model
from train.launch import run_training
from train.status import read_status
from train.step import Masked, Masker

pytestmark = pytest.mark.usefixtures("one_thread")

# The first losses of seed 0. A change that claims to change no mathematics leaves them as they are.
GOLDEN_MSE = [0.804108, 0.640952, 0.544730, 0.475456, 0.448318]
GOLDEN_CRITIC = [0.970606, -0.018219, -0.102998, -0.142827, -0.163255]


def test_golden_losses(training: MakeTraining) -> None:
    cfg = training("golden", "train.steps=5", "train.checkpoint_every=5", "train.zero_stage=0")
    run_training(cfg)
    for name, golden in (("train/mse", GOLDEN_MSE), ("train/critic_loss", GOLDEN_CRITIC)):
        history = metric_history(cfg, run_store(cfg), name)
        assert [step for step, _ in history] == [1, 2, 3, 4, 5]
        assert [value for _, value in history] == pytest.approx(golden, rel=2e-3), name


def spoil_steps(monkeypatch: pytest.MonkeyPatch, bad: set[int]) -> None:
    """Let the targets of these batches, counted from 0, be no numbers."""
    mask, steps = Masker.__call__, itertools.count()

    def spoil(self: Masker, batch: Batch) -> Masked:
        masked = mask(self, batch)
        if next(steps) in bad:
            masked.target_BMP.fill_(math.nan)
        return masked

    monkeypatch.setattr(Masker, "__call__", spoil)


def test_bad_batches_are_left_out_and_too_many_end_the_run(
    training: MakeTraining, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoil_steps(monkeypatch, {1, 3, 4})
    cfg = training("bad", "train.max_nonfinite=2")
    with pytest.raises(MarlinError, match=r"step 5: train/critic_loss=nan, and 2 updates in a row were left .*: try"):
        run_training(cfg)
    assert "step 2 is left out: train/critic_loss=nan (1 in a row)" in caplog.text
    status = read_status(run_store(cfg))
    assert status is not None
    assert (status.state, status.step, status.usage) == ("failed", 4, False)
    skipped = metric_history(cfg, run_store(cfg), "train/skipped_steps")
    assert skipped == [(1, 0), (2, 1), (3, 1), (4, 2)]


def test_unparsed_frames_are_counted_and_told(
    training: MakeTraining, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unparsed = drawn_unparsed(tmp_path / "unparsed")
    cfg = training("unparsed", f"data.dataset='{unparsed.store.url}'", "train.steps=3", "train.micro_batch=2")
    plan = TrainPlan(cfg, unparsed.dataset, "train")
    expected = [
        sum(frame < clip.sample.frames // 2 for clip in plan.step(step) for frame in clip.frames(cfg.data)[::2])
        for step in range(3)
    ]
    with caplog.at_level(logging.INFO):
        run_training(cfg)
    history = metric_history(cfg, run_store(cfg), "train/unparsed_frames")
    assert history == [(step + 1, count) for step, count in enumerate(expected)]
    assert f"unparsed frames {expected[0]}" in caplog.text


def test_a_run_publishes_what_others_need(training: MakeTraining, tmp_path: Path) -> None:
    cfg = training("whole", "train.steps=3", "train.val_clips=4", "train.val_every=2")
    status = run_training(cfg)
    run = run_store(cfg)
    assert (status.state, status.step) == ("done", 3)
    assert read_status(run) == status
    published = list_checkpoints(run)
    assert [checkpoint.name for checkpoint in published] == ["step-00000002.r0", "step-00000003.r0"]
    assert published[-1].info["samples"] == 12
    assert published[-1].info["mlflow_run_id"] == json.loads(run.read("mlflow.json"))["run_id"]
    assert not any(entry.name.endswith(".py") for entry in published[-1].files)
    weights(cfg, tmp_path / "fetched")
    (tmp_path / "fetched" / "config.yaml").write_bytes(run.read(f"{published[-1].prefix}/config.yaml"))
    model, saved = load_model(tmp_path / "fetched")
    assert saved == cfg
    assert not model.training
    assert [step for step, _ in metric_history(cfg, run, "val/mse")] == [2, 3]
    assert not list((tmp_path / "scratch").rglob("*.safetensors"))
    assert run_training(cfg) == status  # done: returns at once


def test_a_run_without_dali_trains_the_same(
    training: MakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(training("dali", "train.steps=2"))
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delitem(sys.modules, "train.data.dali")
    run_training(training("opencv", "train.steps=2", "data.decoder=opencv"))
    trained = [weights(training(name), tmp_path / name) for name in ("dali", "opencv")]
    assert trained[0] == trained[1]


def test_a_checkpoint_normalises_as_it_was_trained(training: MakeTraining, tmp_path: Path) -> None:
    cfg = training("normalised", "data.normalize=imagenet", "train.steps=1", "critic.weight=0")
    run_training(cfg)
    with open_checkpoint(run_store(cfg), list_checkpoints(run_store(cfg))[-1]) as (model, _):
        assert model.normalize == "imagenet"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "precision"),
    [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16")],
)
def test_a_stopped_run_continues_bit_for_bit(
    training: MakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int, precision: str
) -> None:
    settings = (f"train.zero_stage={stage}", f"train.precision={precision}", "train.checkpoint_every=100")
    whole, parts = training("whole", *settings), training("parts", *settings)
    run_training(whole)
    interrupted(parts, monkeypatch, 3)
    assert read_status(run_store(parts)).state == "resumable"  # type: ignore[union-attr]
    assert [checkpoint.step for checkpoint in list_checkpoints(run_store(parts))] == [3]
    run_training(parts)
    assert weights(parts, tmp_path / "b") == weights(whole, tmp_path / "a")
    for name in ("train/mse", "train/critic_loss", "train/lr"):
        assert metric_history(parts, run_store(parts), name) == metric_history(whole, run_store(whole), name)


@pytest.mark.slow
@pytest.mark.parametrize("critic", ["critic.weight=0", "critic.steps=2", "critic.lipschitz=clip"])
def test_variants_of_the_critic_train(training: MakeTraining, critic: str) -> None:
    cfg = training("variant", critic, "train.steps=2", "train.micro_batch=2")
    assert run_training(cfg).state == "done"
    names = {entry.name for entry in list_checkpoints(run_store(cfg))[-1].files}
    assert ("critic.safetensors" in names) == (critic != "critic.weight=0")


@pytest.mark.slow
def test_a_damaged_checkpoint_is_skipped_and_published_again(
    training: MakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = training("damaged", "train.keep_last=2")
    interrupted(cfg, monkeypatch, 4)
    newest = list_checkpoints(run_store(cfg))[-1]
    path = run_store(cfg).local_path(f"{newest.prefix}/critic.safetensors")
    assert path is not None
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    expected = weights(cfg, tmp_path / "two", step=2)
    with caplog.at_level(logging.WARNING):
        interrupted(cfg, monkeypatch, 4)
    assert "skipping checkpoint step-00000004.r0" in caplog.text
    assert "critic.safetensors is damaged" in caplog.text
    assert [checkpoint.name for checkpoint in list_checkpoints(run_store(cfg))] == [
        "step-00000002.r0",
        "step-00000004.r1",
    ]
    assert weights(cfg, tmp_path / "two", step=2) == expected
    assert not run_store(cfg).exists("checkpoints/step-00000004.r0.manifest.json")  # replaced, so withdrawn
    run_training(cfg)
    whole = training("undamaged")
    run_training(whole)
    assert weights(cfg, tmp_path / "a") == weights(whole, tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.size=small", "was trained with model=tiny, this configuration has small"),
        ("train.seed=1", "was trained with seed=0"),
        ("train.global_batch=8", "was trained with global_batch=4"),
        ("critic.weight=0", "was trained with critic=True"),
        ("data.streams=2", r"was trained with order=\['sample', 4\], this configuration has \['sample', 2\]"),
        ("data.flip=true", "was trained with flip=False"),
    ],
)
def test_resuming_as_something_else_is_refused(
    training: MakeTraining, monkeypatch: pytest.MonkeyPatch, change: str, message: str
) -> None:
    cfg = training("mine")
    interrupted(cfg, monkeypatch, 1)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UsageError, match=message):
        run_training(training("mine", change))
    assert signal.getsignal(signal.SIGTERM) is handler  # nothing of the failed start is left
    assert read_status(run_store(cfg)).usage  # type: ignore[union-attr]


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_other_settings_of_the_optimiser_are_told_and_used(
    training: MakeTraining, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stage: int
) -> None:
    cfg = training("mine", f"train.zero_stage={stage}")
    interrupted(cfg, monkeypatch, 1)
    seen: list[tuple[tuple[float, float], float]] = []
    step = AdamW.step

    def noting(self: AdamW, *arguments: Any) -> Any:
        seen.extend((group["betas"], group["weight_decay"]) for group in self.param_groups)
        return step(self, *arguments)

    monkeypatch.setattr(AdamW, "step", noting)
    changed = ("train.betas=[0.8,0.9]", "train.weight_decay=0.05", "critic.clip=0.02")
    run_training(training("mine", f"train.zero_stage={stage}", *changed))
    assert set(seen) == {((0.8, 0.9), 0.05)}
    for name, value, before in (
        ("critic.clip", "0.02", "0.01"),
        ("train.betas", "[0.8, 0.9]", "[0.9, 0.95]"),
        ("train.weight_decay", "0.05", "0.0"),
    ):
        assert f"the run goes on with {name}={value}, it was trained with {before} so far" in caplog.text


def test_updates_left_out_are_counted_through_a_stop(training: MakeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = training("skipped")
    spoil_steps(monkeypatch, {1})
    interrupted(cfg, monkeypatch, 3)
    run_training(cfg)
    assert metric_history(cfg, run_store(cfg), "train/skipped_steps") == [(1, 0), *((step, 1) for step in range(2, 7))]


def test_a_mix_is_trained_recorded_and_bound_to(
    training: MakeTraining, drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "other"))
    write_dataset(store, [DrawnTrack(f"{name}.mp4") for name in "wxyz"], size=32, patch=8, label_maps=False)
    urls = (drawn.store.url, store.url)

    def mixed(name: str, *weights: int) -> Config:
        cfg = training(name, "train.steps=4", "train.val_clips=4", "train.val_every=4")
        mix = tuple(MixPart(dataset=url, weight=weight) for url, weight in zip(urls, weights, strict=True))
        return cfg.model_copy(update={"data": cfg.data.model_copy(update={"dataset": "", "mix": mix})})

    parts, whole = mixed("parts", 3, 1), mixed("whole", 3, 1)
    interrupted(parts, monkeypatch, 2)
    with pytest.raises(UsageError, match="was trained with dataset="):
        run_training(mixed("parts", 1, 1))
    run_training(parts)
    run_training(whole)
    assert weights(parts, tmp_path / "a") == weights(whole, tmp_path / "b")
    info = list_checkpoints(run_store(parts))[-1].info
    identities = [drawn.dataset.identity, load_dataset(store).identity]
    assert info["mix"] == [
        {"dataset": url, "identity": identity, "weight": weight}
        for url, identity, weight in zip(urls, identities, (3, 1), strict=True)
    ]
    client = MlflowClient(tracking_uri=parts.tracking.uri)
    params = client.get_run(info["mlflow_run_id"]).data.params
    assert [params[f"mix.{place}.identity"] for place in (0, 1)] == identities
    assert (params["mix.0.weight"], params["dataset"]) == ("3", info["dataset"])


def test_retention_keeps_the_newest_and_every_second(training: MakeTraining) -> None:
    cfg = training("kept", "train.keep_last=2", "train.keep_every=2", "train.checkpoint_every=1", "train.steps=5")
    run_training(cfg)
    published = list_checkpoints(run_store(cfg))
    assert [checkpoint.step for checkpoint in published] == [2, 4, 5]
    kept = {checkpoint.prefix for checkpoint in published}
    stored = [item.key for item in run_store(cfg).list("checkpoints/") if not item.key.endswith(".manifest.json")]
    assert {key.rsplit("/", key.count("/") - 2)[0] for key in stored} == kept


def test_a_batch_that_does_not_fit_is_wrong_usage(training: MakeTraining) -> None:
    cfg = training("unfit", "train.micro_batch=3")
    with pytest.raises(UsageError, match=r"does not divide into train\.micro_batch=3"):
        run_training(cfg)
    assert not list_checkpoints(run_store(cfg))


def test_an_error_is_told_although_the_status_can_not_be_written(
    training: MakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("the server is away")

    monkeypatch.setattr("train.worker.write_failure", fail)
    with pytest.raises(MarlinError, match="nowhere"):
        run_training(training("mute", f"data.dataset='{tmp_path / 'nowhere'}'"))
    assert "nowhere" in caplog.text
    assert "status can't be written either: the server is away" in caplog.text


def test_a_missing_dataset_names_the_place(training: MakeTraining, tmp_path: Path) -> None:
    with pytest.raises(MarlinError, match="nowhere"):
        run_training(training("lost", f"data.dataset='{tmp_path / 'nowhere'}'"))
