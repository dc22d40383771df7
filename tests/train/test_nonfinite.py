"""Updates that are left out: both networks go on as if the batch had never been there."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from drawn import MakeConfig
from torch import Tensor
from updates import batches_of, build, configure

from pipeline.errors import MarlinError
from train.engine import full_parameters
from train.nonfinite import NotFinite, SkipCount, Undo, advice, spread
from train.step import Masked, Stepper

pytestmark = pytest.mark.usefixtures("one_thread")
CELLS = [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16")]


def state(*engines: Any) -> list[Tensor]:
    """Weights of the engines, and all their optimisers know."""
    found = []
    for engine in engines:
        found += full_parameters(engine).values()
        optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
        for memory in optimizer.state.values():
            found += [value.clone() for value in memory.values()]
    return found


def parts_of(step: int, accumulation: int, precision: str, bad: float | None = None) -> list[Masked]:
    parts = batches_of(step, accumulation)
    if bad is not None:
        parts[-1].target_BMP[0, 0, 0] = bad
    return [replace(part, cubes_BNP=part.cubes_BNP.to(dtype_of(precision))) for part in parts]


def dtype_of(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32


def assert_equal(got: list[Tensor], expected: list[Tensor]) -> None:
    assert len(got) == len(expected) > 0
    for mine, other in zip(got, expected, strict=True):
        assert torch.equal(mine, other)


@pytest.fixture(params=CELLS, ids=str)
def cell(request: pytest.FixtureRequest) -> Any:
    return request.param


def start(make_config: MakeConfig, cell: tuple[int, str], accumulation: int, **critic: Any) -> tuple[Stepper, Any, Any]:
    stage, precision = cell
    cfg = configure(make_config, {"weight": 0.5, **critic}, accumulation)
    train = cfg.train.model_copy(update={"precision": precision})
    return build(cfg.model_copy(update={"train": train}), accumulation, stage)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_batch_leaves_no_trace(
    make_config: MakeConfig, cell: tuple[int, str], accumulation: int, bad: float
) -> None:
    stepper, *engines = start(make_config, cell, accumulation)
    for step in (0, 1):
        stepper(parts_of(step, accumulation, cell[1]))
    before = state(*engines)
    with pytest.raises(NotFinite) as caught:
        stepper(parts_of(7, accumulation, cell[1], bad))
    assert caught.value.network == "critic"  # the critic sees the target first
    assert not caught.value.losses["train/critic_loss"].isfinite()
    assert_equal(state(*engines), before)
    stepper(parts_of(2, accumulation, cell[1]))

    other, *undisturbed = start(make_config, cell, accumulation)
    for step in (0, 1, 2):
        other(parts_of(step, accumulation, cell[1]))
    assert_equal(state(*engines), state(*undisturbed))


@pytest.mark.parametrize("done", [0, 2])
def test_the_critic_is_put_back_when_the_generator_fails(
    make_config: MakeConfig, cell: tuple[int, str], done: int
) -> None:
    """A gradient that overflows on its way back through the generator, after the critic's update."""
    stepper, *engines = start(make_config, cell, 1, steps=2, lipschitz="clip")
    for step in range(done):
        stepper(parts_of(step, 1, cell[1]))
    before = state(*engines)
    hook = engines[0].module.embed.bias.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NotFinite) as caught:
        stepper(parts_of(2, 1, cell[1]))
    hook.remove()
    assert caught.value.network == "generator"
    assert all(value.isfinite() for value in caught.value.losses.values())
    assert_equal(state(*engines), before)
    stepper(parts_of(3, 1, cell[1]))
    assert all(value.isfinite().all() for value in state(*engines))


def test_a_later_round_of_the_critic_takes_the_earlier_ones_back(make_config: MakeConfig) -> None:
    stepper, *engines = start(make_config, (1, "fp32"), 1, steps=2)
    before, seen = state(*engines), []

    def second(gradient: Tensor) -> Tensor:
        seen.append(gradient)
        return gradient * math.nan if len(seen) > 1 else gradient

    hook = next(iter(engines[1].module.parameters())).register_hook(second)
    with pytest.raises(NotFinite, match="critic"):
        stepper(parts_of(0, 1, "fp32"))
    hook.remove()
    assert_equal(state(*engines), before)


def test_an_infinite_loss_counts_even_over_finite_gradients() -> None:
    weight = torch.ones(2, requires_grad=True)
    spread(weight.sum() + math.inf).backward()
    assert weight.grad is not None
    assert weight.grad.isnan().all()
    weight.grad = None
    spread(weight.sum()).backward()
    assert torch.equal(weight.grad, torch.ones(2))


def test_undoing_restores_views(make_config: MakeConfig) -> None:
    _, _, critic = start(make_config, (1, "fp32"), 1)
    before = state(critic)
    undo = Undo(critic)
    with torch.no_grad():
        for parameter in critic.module.parameters():
            parameter.add_(1)
    undo()
    assert_equal(state(critic), before)


def test_too_many_in_a_row_end_the_run() -> None:
    skips = SkipCount(2)
    cause = NotFinite("generator", {})
    assert skips.skipped(5, cause, {"train/mse": math.nan}, "x") == "step 5 is left out: train/mse=nan (1 in a row)"
    skips.finite()
    assert "a gradient of the generator" in skips.skipped(7, cause, {"train/mse": 1.0}, "x")
    with pytest.raises(MarlinError, match=r"step 8: train/mse=inf, and 2 updates in a row .*max_nonfinite=2\): x"):
        skips.skipped(8, cause, {"train/mse": math.inf}, "x")
    assert skips.total == 3


@pytest.mark.parametrize(("precision", "hint"), [("fp16", "bf16 or fp32"), ("bf16", "precision=fp32"), ("fp32", "lr")])
def test_the_advice_fits_the_precision(precision: str, hint: str) -> None:
    assert hint in advice(precision)
