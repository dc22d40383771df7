"""Engines: what they are told to do, and weights that are changed from outside stay changed."""

from typing import Any

import pytest
import torch
from drawn import MakeConfig
from torch import Tensor, nn

from train.engine import (
    full_parameters,
    make_engine,
    over_ranks,
    set_learning_rate,
    update_parameters,
)
from train.export import geometry_of, model_of
from train.join import join_world
from train.world import World

pytestmark = pytest.mark.usefixtures("one_thread")
STAGES = pytest.mark.parametrize("stage", [0, 1, 2, 3])


def linear_engine(make_config: MakeConfig, stage: int, precision: str = "fp32", **train: Any) -> Any:
    join_world()
    torch.manual_seed(0)
    cfg = make_config(
        train={"global_batch": 4, "micro_batch": 4, "zero_stage": max(stage, 1), "precision": precision, **train}
    )
    return make_engine(nn.Linear(3, 2), cfg.train, 1, stage)


def step(engine: Any, inputs: Tensor) -> None:
    engine.backward(engine(inputs).float().square().mean())
    engine.step()


@STAGES
def test_gradients_are_not_clipped(make_config: MakeConfig, stage: int) -> None:
    """The paper does not clip, DeepSpeed does by default: a second gradient 1000 times the first must count whole."""
    engine = linear_engine(make_config, stage)
    plain = nn.Linear(3, 2)
    plain.load_state_dict(full_parameters(engine))
    rule = torch.optim.AdamW(plain.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    set_learning_rate(engine, 0.01)
    for scale in (1.0, 30.0, 1.0):
        inputs = torch.full((4, 3), scale)
        step(engine, inputs)
        rule.zero_grad()
        plain(inputs).square().mean().backward()
        rule.step()
    for name, value in full_parameters(engine).items():
        torch.testing.assert_close(value, plain.state_dict()[name])


@STAGES
def test_the_learning_rate_is_the_one_set_last(make_config: MakeConfig, stage: int) -> None:
    engine = linear_engine(make_config, stage)
    before = full_parameters(engine)
    set_learning_rate(engine, 0.0)
    step(engine, torch.ones(4, 3))
    for name, value in full_parameters(engine).items():
        assert torch.equal(value, before[name])
    set_learning_rate(engine, 0.5)
    step(engine, torch.ones(4, 3))
    assert max(float((value - before[name]).abs().max()) for name, value in full_parameters(engine).items()) > 0.1


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "fp32"), (1, "bf16"), (2, "fp32")])
def test_changed_parameters_stay_changed(make_config: MakeConfig, stage: int, precision: str) -> None:
    engine = linear_engine(make_config, stage, precision)
    inputs = torch.ones(4, 3, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    set_learning_rate(engine, 1e-4)
    step(engine, inputs)
    update_parameters(engine, lambda weight: torch.full_like(weight, 0.25))
    step(engine, inputs)
    for value in full_parameters(engine).values():
        torch.testing.assert_close(value, torch.full_like(value, 0.25), atol=1e-3, rtol=0)


def test_pixels_are_scaled_in_bf16_too(make_config: MakeConfig) -> None:
    """DeepSpeed turns weights into bf16, and not what pixels are scaled by."""
    join_world()
    train = {"global_batch": 1, "micro_batch": 1, "zero_stage": 1, "precision": "bf16"}
    cfg = make_config(data={"normalize": "imagenet"}, train=train)
    engine = make_engine(model_of(cfg), cfg.train, 1, 1)
    cubes_BNP = torch.rand(1, geometry_of(cfg).tokens, geometry_of(cfg).cube, dtype=torch.bfloat16)
    order_BN = torch.arange(geometry_of(cfg).tokens)[None]
    assert engine(cubes_BNP, order_BN[:, :4], order_BN[:, 4:]).dtype == torch.bfloat16


def test_one_rank_has_its_own_values() -> None:
    found = over_ranks({"a": torch.tensor(1.5)}, {"b": 2.0}, World(0, 1, 0, torch.device("cpu")))
    assert {name: float(value) for name, value in found.items()} == {"a": 1.5, "b": 2.0}
