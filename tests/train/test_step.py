"""The update of both networks: the paper's algorithm 2 written plainly must give the same weights."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from drawn import MakeConfig
from torch import Tensor, nn
from updates import RATE, batches_of, build, configure, networks

from pipeline.config.schema import CriticConfig
from train.engine import full_parameters, set_learning_rate
from train.objective import adversarial_loss, critic_loss, gradient_penalty, reconstruction_loss
from train.step import Masked, Stepper, penalty_points

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 4


@pytest.fixture
def double() -> Iterator[None]:
    """Networks, clips and losses in 64 bits; ZeRO's copy of the weights, and so the update, stays in 32.

    A unit of the critic that is active everywhere has a bias whose gradient cancels to rounding noise, and AdamW makes
    whole steps of noise: in 32 bits two correct orders of summation would part there.
    """
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def algorithm_2(
    generator: nn.Module, critic: nn.Module, cfg: CriticConfig, steps: Sequence[Sequence[Masked]]
) -> list[float]:
    """Two passes of the generator, one whole batch a step, plain AdamW: no engine, no sharing. Returns the MSEs."""
    rules = [
        torch.optim.AdamW(m.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0) for m in (generator, critic)
    ]
    history = []
    for parts in steps:
        whole = Masked(*(torch.cat([getattr(part, name) for part in parts]) for name in Masked.__dataclass_fields__))
        inputs = whole.cubes_BNP, whole.visible_BV, whole.hidden_BM
        for repeat in range(cfg.steps if cfg.weight else 0):
            fake = generator(*inputs).detach()
            rules[1].zero_grad()
            loss = critic_loss(critic(whole.target_BMP), critic(fake))
            if cfg.lipschitz == "gradient-penalty":
                alpha = penalty_points(whole.hash_B, fake.shape[1], repeat)
                loss = loss + cfg.penalty * gradient_penalty(critic, whole.target_BMP, fake, alpha)
            loss.backward()
            rules[1].step()
            if cfg.lipschitz == "clip":
                for weight in critic.parameters():
                    weight.data.clamp_(-cfg.clip, cfg.clip)
        predicted = generator(*inputs)
        mse = reconstruction_loss(predicted, whole.target_BMP)
        rules[0].zero_grad()
        (mse + cfg.weight * adversarial_loss(critic(predicted))).backward()
        rules[0].step()
        history.append(mse.item())
    return history


# ZeRO updates in 32 bits even then, and AdamW magnifies what that leaves in gradients near zero. One update
# moves a weight by RATE, twenty times the tolerance; clipped gradients, say, would show with six times the tolerance.
def assert_same(got: dict[str, Tensor], expected: nn.Module) -> None:
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(
            got[name], parameter.detach().float(), atol=5e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


class PlainEngine:
    """An engine without DeepSpeed, which keeps 64 bits all the way: what `Stepper` asks of one."""

    device = torch.device("cpu")

    def __init__(self, module: nn.Module, accumulation: int) -> None:
        self.module, self._accumulation, self._done = module, accumulation, 0
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)

    def __call__(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)

    def backward(self, loss: Tensor) -> None:
        torch.autograd.backward(loss / self._accumulation)

    def is_gradient_accumulation_boundary(self) -> bool:
        return (self._done + 1) % self._accumulation == 0

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        if self.is_gradient_accumulation_boundary():
            self.optimizer.step()
            self.zero_grad()
        self._done += 1


@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("critic", [{"steps": 1}, {"steps": 3}, {"steps": 2, "lipschitz": "gradient-penalty"}])
@pytest.mark.usefixtures("double")
def test_one_pass_equals_two_to_the_last_digits(
    make_config: MakeConfig, critic: dict[str, Any], accumulation: int
) -> None:
    cfg = configure(make_config, {"weight": 0.5, **critic}, accumulation)
    ours, plain = ([network.double() for network in networks()] for _ in range(2))
    steps = [batches_of(step, accumulation) for step in range(STEPS)]
    algorithm_2(plain[0], plain[1], cfg.critic, steps)
    stepper = Stepper(cfg, *(PlainEngine(network, accumulation) for network in ours))
    for parts in steps:
        stepper(parts)
    for network, expected in zip(ours, plain, strict=True):
        for (name, value), other in zip(network.named_parameters(), expected.parameters(), strict=True):
            assert value.dtype == torch.float64
            torch.testing.assert_close(value, other, atol=1e-9, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("stage", "accumulation"), [(1, 1), (1, 2), (1, 4), (2, 2), (3, 1), (3, 2)])
@pytest.mark.usefixtures("double")
def test_equals_the_plain_two_pass_algorithm(make_config: MakeConfig, stage: int, accumulation: int) -> None:
    cfg = configure(make_config, {"weight": 0.5}, accumulation)
    stepper, generator, critic = build(cfg, accumulation, stage)
    plain = networks()
    steps = [batches_of(step, accumulation) for step in range(STEPS)]
    expected = algorithm_2(*plain, cfg.critic, steps)
    losses = [stepper(parts)["train/mse"].item() for step, parts in enumerate(steps)]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert_same(full_parameters(generator), plain[0])
    assert_same(full_parameters(critic), plain[1])


def test_equals_the_plain_algorithm_without_sharding(make_config: MakeConfig) -> None:
    """ZeRO stage 0 takes no 64 bits; with one micro batch the sums have the same order."""
    cfg = configure(make_config, {"weight": 0.5}, 1)
    stepper, generator, critic = build(cfg, 1, 0)
    plain, steps = networks(), [batches_of(step, 1) for step in range(STEPS)]
    algorithm_2(*plain, cfg.critic, steps)
    for parts in steps:
        stepper(parts)
    assert_same(full_parameters(generator), plain[0])
    assert_same(full_parameters(critic), plain[1])


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    "critic",
    [
        {"weight": 0.5, "steps": 3},
        {"weight": 0.5, "lipschitz": "clip", "clip": 0.02, "steps": 2},
        {"weight": 0.5, "lipschitz": "gradient-penalty", "penalty": 10.0, "steps": 2},
        {"weight": 0.0},
    ],
    ids=["three critic steps", "clipped", "penalised", "no critic"],
)
def test_variants_equal_the_plain_algorithm(make_config: MakeConfig, critic: dict[str, Any], accumulation: int) -> None:
    cfg = configure(make_config, critic, accumulation)
    stepper, generator, engine = build(cfg, accumulation, 1)
    plain = networks()
    steps = [batches_of(step, accumulation) for step in range(STEPS)]
    algorithm_2(*plain, cfg.critic, steps)
    for parts in steps:
        stepper(parts)
    assert_same(full_parameters(generator), plain[0])
    assert_same(full_parameters(engine), plain[1])


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "fp32"), (1, "bf16")])
def test_clipping_bounds_the_weights_after_every_update(make_config: MakeConfig, stage: int, precision: str) -> None:
    cfg = configure(make_config, {"weight": 0.5, "lipschitz": "clip", "clip": 0.01}, 1)
    cfg = cfg.model_copy(update={"train": cfg.train.model_copy(update={"precision": precision})})
    stepper, _, critic = build(cfg, 1, stage)
    for step in range(STEPS):
        parts = batches_of(step, 1)
        if precision == "bf16":
            parts = [replace(p, cubes_BNP=p.cubes_BNP.bfloat16()) for p in parts]
        stepper(parts)
        for weights in (full_parameters(critic), dict(critic.module.named_parameters())):
            assert max(value.detach().abs().max().item() for value in weights.values()) <= 0.01 * (1 + 2**-8)


@pytest.mark.parametrize("stage", [0, 1])
def test_gradient_penalty_pulls_the_critic_towards_slope_one(make_config: MakeConfig, stage: int) -> None:
    cfg = configure(make_config, {"weight": 0.1, "lipschitz": "gradient-penalty", "penalty": 10.0, "steps": 5}, 1)
    stepper, _, critic = build(cfg, 1, stage)
    parts = batches_of(0, 1)

    def penalty() -> float:
        real, fake = parts[0].target_BMP, torch.zeros_like(parts[0].target_BMP)
        return float(gradient_penalty(critic.module, real, fake, torch.full(real.shape[:2], 0.5)).detach())

    before = penalty()
    for _ in range(40):
        stepper(parts)
    assert penalty() < before / 2


@pytest.mark.parametrize("stage", [0, 1])
def test_generator_update_leaves_the_critic_alone(make_config: MakeConfig, stage: int) -> None:
    cfg = configure(make_config, {"weight": 0.5}, 1)
    stepper, _, critic = build(cfg, 1, stage)
    set_learning_rate(critic, 0.0)  # whatever moves it now is not its own update
    before = deepcopy(full_parameters(critic))
    for step in range(2):
        stepper(batches_of(step, 1))
        assert all(parameter.grad is None or not parameter.grad.any() for parameter in critic.module.parameters())
        assert all(parameter.requires_grad for parameter in critic.module.parameters())
    for name, value in full_parameters(critic).items():
        assert torch.equal(value, before[name]), name


def test_metrics_are_the_means_of_the_update(make_config: MakeConfig) -> None:
    cfg = configure(make_config, {"weight": 0.5}, 2)
    stepper, generator, critic = build(cfg, 2, 0)
    parts = batches_of(0, 2)
    with torch.no_grad():
        fakes = [generator.module(p.cubes_BNP, p.visible_BV, p.hidden_BM) for p in parts]
        scores = [
            critic.module(fake).mean() - critic.module(p.target_BMP).mean()
            for fake, p in zip(fakes, parts, strict=True)
        ]
        mse = torch.stack([(fake - p.target_BMP).square().mean() for fake, p in zip(fakes, parts, strict=True)]).mean()
    got = stepper(parts)
    assert got["train/critic_loss"].item() == pytest.approx(torch.stack(scores).mean().item(), rel=1e-5)
    assert got["train/wasserstein"].item() == -got["train/critic_loss"].item()
    assert got["train/mse"].item() == pytest.approx(mse.item(), rel=1e-5)
    assert got["train/loss"].item() == pytest.approx(
        got["train/mse"].item() + got["train/generator_adv"].item(), rel=1e-5
    )


def test_without_a_critic_there_are_no_critic_metrics(make_config: MakeConfig) -> None:
    cfg = configure(make_config, {"weight": 0.0}, 1)
    got = build(cfg, 1, 1)[0](batches_of(0, 1))
    assert set(got) == {"train/loss", "train/mse", "train/grad_norm"}
    assert got["train/loss"].item() == got["train/mse"].item()


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_norms_are_those_of_the_whole_gradient(make_config: MakeConfig, stage: int, accumulation: int) -> None:
    cfg = configure(make_config, {"weight": 0.5}, accumulation)
    parts = batches_of(0, accumulation)
    got = build(cfg, accumulation, stage)[0](parts)
    generator, critic = networks()
    for part in parts:
        fake = generator(part.cubes_BNP, part.visible_BV, part.hidden_BM).detach()
        (critic_loss(critic(part.target_BMP), critic(fake)) / accumulation).backward()
    gradients = [parameter.grad for parameter in critic.parameters() if parameter.grad is not None]
    assert got["train/critic_grad_norm"].item() == pytest.approx(
        torch.nn.utils.get_total_norm(gradients).item(), rel=1e-4
    )
    torch.optim.AdamW(critic.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0).step()
    for part in parts:
        predicted = generator(part.cubes_BNP, part.visible_BV, part.hidden_BM)
        loss = reconstruction_loss(predicted, part.target_BMP) + 0.5 * adversarial_loss(critic(predicted))
        (loss / accumulation).backward()
    gradients = [parameter.grad for parameter in generator.parameters() if parameter.grad is not None]
    assert got["train/grad_norm"].item() == pytest.approx(torch.nn.utils.get_total_norm(gradients).item(), rel=1e-4)
