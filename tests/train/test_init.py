"""Runs that start from given weights."""

from pathlib import Path

import pytest
import torch
from training import MakeTraining, interrupted, weights

from pipeline.checkpoints import fetch_checkpoint, list_checkpoints
from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import run_store
from pipeline.storage.manifest import sha256_file
from train.export import geometry_of, load_model
from train.interop import to_official
from train.launch import run_training
from train.model import MaskedAutoencoder

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(cfg: Config, folder: Path) -> MaskedAutoencoder:
    run_training(cfg)
    newest = list_checkpoints(run_store(cfg))[-1]
    return load_model(fetch_checkpoint(run_store(cfg), newest, folder))[0]


def test_a_run_starts_from_a_file_or_from_a_run(training: MakeTraining, tmp_path: Path) -> None:
    source = training("source", "train.steps=2")
    model = trained(source, tmp_path / "source")
    file = tmp_path / "start.pt"
    torch.save(to_official(model.state_dict(), geometry_of(source)), file)
    for name, init in (("from-a-file", str(file)), ("from-a-run", run_store(source).url)):
        cfg = training(name, f"model.init='{init}'", "train.steps=2", "train.base_lr=1e-12", "train.min_lr=0")
        for key, value in trained(cfg, tmp_path / name).state_dict().items():
            torch.testing.assert_close(value, model.state_dict()[key], atol=1e-6, rtol=0)


def test_it_goes_on_without_them_and_never_from_nothing(
    training: MakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = training("source", "train.steps=2")
    file = tmp_path / "start.pt"
    torch.save(trained(source, tmp_path / "source").state_dict(), file)
    digest = sha256_file(file)
    whole, cut = (training(name, f"model.init='{file}'") for name in ("whole", "cut"))
    run_training(whole)
    interrupted(cut, monkeypatch, 3)
    file.unlink()
    run_training(cut)
    assert weights(cut, tmp_path / "a") == weights(whole, tmp_path / "b")
    kept = [checkpoint.info["init"] for cfg in (whole, cut) for checkpoint in list_checkpoints(run_store(cfg))]
    assert kept == [{"url": str(file), "sha256": digest}] * len(kept)

    for checkpoint in list_checkpoints(run_store(cut)):
        run_store(cut).write(f"{checkpoint.prefix}/model.safetensors", b"damaged")
    longer = cut.model_copy(update={"train": cut.train.model_copy(update={"steps": 8})})
    with pytest.raises(MarlinError, match=r"has no whole checkpoint left: delete .*/checkpoints to begin with model"):
        run_training(longer)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "variant",
    [
        ("train.zero_stage=0",),
        ("train.zero_stage=1", "train.micro_batch=2"),
        ("train.zero_stage=2", "model.checkpoint_activations=true"),
    ],
    ids=["plain", "accumulation", "checkpointed"],
)
def test_a_compiled_run_trains_the_same(training: MakeTraining, tmp_path: Path, variant: tuple[str, ...]) -> None:
    settings = ("train.steps=3", *variant)
    plain = trained(training("plain", *settings), tmp_path / "plain").state_dict()
    compiled = trained(training("compiled", *settings, "model.compile=true"), tmp_path / "compiled").state_dict()
    for key, value in compiled.items():
        torch.testing.assert_close(value, plain[key], atol=2e-3, rtol=0, msg=lambda m, k=key: f"{k}: {m}")
