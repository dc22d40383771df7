"""Each loss against a hand computation."""

import math

import pytest
import torch
from torch import Tensor, nn

from train.objective import (
    adversarial_loss,
    critic_loss,
    gradient_penalty,
    normalize_cubes,
    reconstruction_loss,
)


class LinearCritic(nn.Module):
    """D(x) = w·x, whose gradient is w everywhere."""

    def __init__(self, weight: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, cubes_BMP: Tensor) -> Tensor:
        return cubes_BMP @ self.weight


def test_reconstruction_is_the_mean_over_all_hidden_values() -> None:
    predicted = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    target = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])
    assert reconstruction_loss(predicted, target).item() == (1 + 4 + 4) / 4


def test_reconstruction_of_half_precision_is_computed_in_32_bits() -> None:
    predicted, target = torch.full((1, 1, 4), 1.0, dtype=torch.bfloat16), torch.full((1, 1, 4), 1.001)
    assert reconstruction_loss(predicted, target).item() == pytest.approx(1e-6, rel=1e-3)


def test_critic_wants_real_above_reconstructed() -> None:
    real, fake = torch.tensor([[3.0, 5.0]]), torch.tensor([[1.0, 0.0]])
    assert critic_loss(real, fake).item() == 0.5 - 4.0


def test_generator_wants_a_high_score() -> None:
    assert adversarial_loss(torch.tensor([[1.0, 0.0]])).item() == -0.5


@pytest.mark.parametrize("weight", [[3.0, 4.0], [0.6, 0.8], [0.0, 0.5]])
def test_gradient_penalty_of_a_linear_critic(weight: list[float]) -> None:
    critic = LinearCritic(weight)
    penalty = gradient_penalty(critic, torch.rand(2, 3, 2), torch.rand(2, 3, 2), torch.rand(2, 3))
    norm = math.hypot(*weight)
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-6)
    penalty.backward()
    expected = 2 * (norm - 1) * torch.tensor(weight) / norm
    torch.testing.assert_close(critic.weight.grad, expected, atol=1e-5, rtol=1e-5)


def test_gradient_penalty_is_taken_between_real_and_reconstructed() -> None:
    seen: list[Tensor] = []

    class Recorder(nn.Module):
        def forward(self, cubes_BMP: Tensor) -> Tensor:
            seen.append(cubes_BMP.detach())
            return cubes_BMP.square().sum(-1)

    real, fake, alpha = torch.full((1, 3, 1), 4.0), torch.zeros(1, 3, 1), torch.tensor([[0.0, 0.25, 1.0]])
    penalty = gradient_penalty(Recorder(), real, fake, alpha)
    assert seen[0].flatten().tolist() == [0.0, 1.0, 4.0]
    assert penalty.item() == pytest.approx((1 + 1 + 49) / 3)  # |∇| = 2x


def test_normalised_cubes_have_no_mean_and_unit_variance_in_every_channel() -> None:
    cubes = torch.rand(2, 3, 3 * 32) * 5 + 2
    split = normalize_cubes(cubes).view(2, 3, 3, 32)
    torch.testing.assert_close(split.mean(-1), torch.zeros(2, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(split.var(-1), torch.ones(2, 3, 3), atol=1e-4, rtol=0)


def test_normalising_a_flat_cube_stays_finite() -> None:
    assert torch.equal(normalize_cubes(torch.full((1, 1, 12), 0.5)), torch.zeros(1, 1, 12))
