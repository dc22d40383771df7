"""A run that goes on with another number of ranks: the same global batches, and losses equal to rounding."""

from pathlib import Path

import pytest
from training import MakeTraining, marlin, write_config

from pipeline.checkpoints import delete_checkpoint, list_checkpoints
from pipeline.config.schema import Config
from pipeline.layout import run_store
from pipeline.tracking import metric_history
from train.launch import run_training
from train.status import Status, write_status

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("train/mse", "train/critic_loss")
CELLS = [
    (stage, precision, "none")
    for stage in range(4)
    for precision in ("fp32", "bf16")
    if (stage, precision) != (0, "bf16")
]
CELLS += [(1, "fp32", "cpu"), (2, "bf16", "cpu"), (3, "fp32", "cpu")]
IN_SHORT = {(1, "fp32", "none"), (3, "bf16", "none")}


def go_back(cfg: Config, step: int) -> None:
    """Let the newest checkpoint be that of a step."""
    run = run_store(cfg)
    for checkpoint in list_checkpoints(run):
        if checkpoint.step > step:
            delete_checkpoint(run, checkpoint)
    write_status(run, Status("running", step))


def losses(cfg: Config) -> dict[str, list[float]]:
    return {name: [value for _, value in metric_history(cfg, run_store(cfg), name)] for name in NAMES}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "precision", "offload"),
    [pytest.param(*cell, marks=[] if cell in IN_SHORT else pytest.mark.heavy) for cell in CELLS],
)
def test_one_rank_two_ranks_and_one_again(
    training: MakeTraining, tmp_path: Path, stage: int, precision: str, offload: str
) -> None:
    cell = (f"train.zero_stage={stage}", f"train.precision={precision}", f"train.offload_optimizer={offload}")
    one = training("moved", *cell, "train.micro_batch=2", "critic.steps=2")
    two = one.model_copy(update={"train": one.train.model_copy(update={"launcher": "torchrun", "processes": 2})})
    run_training(one)
    expected = losses(one)
    go_back(one, 2)
    on_two = marlin("train", "-c", write_config(two, tmp_path / "two.yaml"))
    assert on_two.returncode == 0, on_two.stderr
    assert "converting step-00000002.r0: ranks 1, now 2" in on_two.stderr
    found, tolerance = losses(one), {"fp32": 1e-5, "bf16": 2e-3}[precision]
    for name in NAMES:
        assert found[name] == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name
    go_back(one, 4)
    newest = list_checkpoints(run_store(one))[-1]
    assert newest.info["world"] == 2
    run_training(one)
    found = losses(one)
    for name in NAMES:
        assert found[name] == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name
    assert list_checkpoints(run_store(one))[-1].info["world"] == 1
