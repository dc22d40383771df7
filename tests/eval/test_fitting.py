"""How long a classifier learns, and which of its epochs counts."""

import pytest
import torch
from torch import nn

from eval.fitting import fit, loss_of, optimizer_of, probabilities
from eval.questions import Question


def layer() -> nn.Linear:
    return nn.Linear(1, 1, bias=False)


def test_the_rate_is_halved_after_seven_epochs_without_gain_until_it_is_spent() -> None:
    model = layer()
    optimizer, rates = optimizer_of(model.parameters(), 1e-4), []

    def train(epoch: int) -> float:
        rates.append(optimizer.param_groups[0]["lr"])
        return 1.0

    assert fit(model, optimizer, train, None, 2000) == len(rates)
    # The first epoch is the best; the eighth after it without gain halves the rate, and so on.
    assert rates[:9] == [1e-4] * 9
    assert rates[9] == pytest.approx(5e-5)
    # 1e-4 is below 1e-6 after seven halvings.
    assert len(rates) == 1 + 7 * 8
    assert optimizer.defaults["betas"] == (0.5, 0.9)
    assert optimizer.defaults["weight_decay"] == 0


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    model, scores = layer(), [0.1, 0.7, 0.7, 0.5]

    def train(epoch: int) -> float:
        with torch.no_grad():
            model.weight.fill_(epoch)
        return 1 / epoch

    values = iter(scores)
    assert fit(model, optimizer_of(model.parameters(), 1e-4), train, lambda: next(values), 4) == 2
    assert model.weight.item() == 2
    assert fit(model, optimizer_of(model.parameters(), 1e-4), train, None, 3) == 3
    assert model.weight.item() == 3


def test_losses_and_probabilities() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, -1.0]])
    truth = torch.tensor([[0, 1], [1, 0]])
    binary, classes = Question("a", "binary", ("x", "y")), Question("b", "class", ("x", "y"))
    plus, minus = torch.log1p(torch.exp(torch.tensor(-2.0))), torch.log1p(torch.exp(torch.tensor(-1.0)))
    expected = torch.stack([(torch.log(torch.tensor(2.0)) + plus) / 2, minus])
    torch.testing.assert_close(loss_of(binary, logits, truth), expected)
    torch.testing.assert_close(loss_of(classes, logits, truth), torch.stack([plus, plus]))
    torch.testing.assert_close(probabilities(binary, logits), logits.double().sigmoid())
    torch.testing.assert_close(probabilities(classes, logits).sum(1), torch.ones(2, dtype=torch.float64))
    near_one = probabilities(binary, torch.tensor([[18.0, 25.0]]))
    assert near_one[0, 0] < near_one[0, 1]  # float32 rounds both to 1
