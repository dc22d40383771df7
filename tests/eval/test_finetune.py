"""Learning from clips, in one process and in several."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_runs import small_config
from labelled import write_labelled
from safetensors.torch import save_file

from eval.classifier import Classifier
from eval.finetune import RESULT, WEIGHTS, Finetuning, Labelled
from eval.questions import TOPICS, answered
from eval.ranks import run_ranks
from eval.tasks.protocols import window_spec
from pipeline.config.evaluation import FinetuneConfig
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError
from pipeline.storage import open_store
from train.export import model_of


def learned(
    tmp_path: Path, attentive: bool, processes: int = 1, seed: int = 0, **settings: Any
) -> dict[str, np.ndarray]:
    """Learning of seven videos, the last epoch of which counts: shares of two ranks are four and three clips."""
    cfg, store = small_config(tmp_path), open_store(str(tmp_path / "labelled"))
    finetune = FinetuneConfig.model_validate({"epochs": 3, "lr": 0.001, **settings})
    cfg = cfg.model_copy(update={"eval": cfg.eval.model_copy(update={"finetune": finetune})})
    if not store.exists("dataset.json"):
        write_labelled(store, "attributes", train=7, val=0)
    dataset = load_dataset(store)
    found = answered(dataset, TOPICS["attributes"].rule(dataset, cfg.eval), cfg.eval)
    train, held_out, scored = (
        Labelled(tuple(found.videos[row] for row in rows), found.truth_VC[rows])
        for rows in map(found.of_split, ("train", "val", "test"))
    )
    job = Finetuning(
        question=found.question,
        cfg=cfg,
        attentive=attentive,
        train=train,
        held_out=held_out,
        scored=scored.videos,
        dataset=store.url,
        spec=window_spec(cfg),
        seed=seed,
    )
    folder = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    torch.manual_seed(0)
    save_file(model_of(cfg).state_dict(), folder / WEIGHTS)
    run_ranks(job, processes, folder)
    with np.load(folder / RESULT) as result:
        return dict(result)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="not run: two processes need two GPUs, or none")
@pytest.mark.parametrize("attentive", [False, True], ids=["finetune", "attentive"])
def test_two_processes_learn_what_one_learns(tmp_path: Path, attentive: bool) -> None:
    # Adam makes a whole step of a gradient that is nothing but rounding: small ones keep that small.
    one, two = (learned(tmp_path, attentive, processes=count, lr=1e-5, epochs=4) for count in (1, 2))
    assert one["epoch"] == two["epoch"]
    np.testing.assert_allclose(two["found_VC"], one["found_VC"], atol=2e-4)
    assert one["found_VC"].shape == (8, 3)
    before = learned(tmp_path, attentive, lr=1e-12)
    assert np.abs(one["found_VC"] - before["found_VC"]).max() > 2e-3  # ten times what they may differ by


def test_it_repeats_exactly_and_another_seed_does_not(tmp_path: Path) -> None:
    first, second, other = (learned(tmp_path, False, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["found_VC"], second["found_VC"])
    assert not np.array_equal(first["found_VC"], other["found_VC"])


@pytest.mark.parametrize("attentive", [False, True], ids=["finetune", "attentive"])
def test_only_fine_tuning_changes_the_encoder_and_nothing_changes_the_decoder(tmp_path: Path, attentive: bool) -> None:
    model = model_of(small_config(tmp_path))
    classifier = Classifier(model, 2, attentive=attentive)
    classifier(torch.randint(0, 255, (2, 16, 32, 32, 3), dtype=torch.uint8)).square().sum().backward()
    learning = {name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None}
    assert learning == (set() if attentive else {"embed", "encoder"})
    assert all(value.grad is not None for value in classifier.head.parameters())


def test_bf16_and_recomputed_activations_give_nearly_the_same(tmp_path: Path) -> None:
    exact = learned(tmp_path, False)["found_VC"]
    np.testing.assert_allclose(learned(tmp_path, False, recompute=True)["found_VC"], exact, atol=1e-6)
    rounded = learned(tmp_path, False, precision="bf16")["found_VC"]
    assert not np.array_equal(rounded, exact)
    np.testing.assert_allclose(rounded, exact, atol=0.1)


def test_a_loss_that_is_no_number_ends_it(tmp_path: Path) -> None:
    with pytest.raises(MarlinError, match=r"training loss of epoch [123] is nan: set a lower learning rate, or fp32"):
        learned(tmp_path, False, lr=1e30)
