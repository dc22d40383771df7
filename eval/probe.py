"""Answers from frozen features: a linear layer, or the nearest neighbours.

Shapes: V videos, D width of a feature, C outputs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsRegressor
from torch import nn

from eval.features import best_device
from eval.fitting import fit, loss_of, optimizer_of, probabilities
from eval.questions import Question
from eval.scores import Probabilities, headline
from pipeline.config.evaluation import ProbeConfig

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """Features and true answers of some videos."""

    features_VD: Features
    truth_VC: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.features_VD)


@dataclass(frozen=True)
class LinearProbe:
    """A layer from features (D) to logits (C), on the CPU, and the epoch it is of."""

    layer: nn.Linear
    epoch: int


def linear_probe(
    question: Question, train: Examples, held_out: Examples, cfg: ProbeConfig, seed: int, *, progress: bool = False
) -> LinearProbe:
    """Learn a linear layer as the official code does (`eval.fitting`); where nothing is held out, to the end.

    Args:
        question: what is asked.
        train: what is learned from.
        held_out: what the best epoch is chosen on, as far as it can be scored; empty: the last one is taken.
        cfg: epochs, batch and rate.
        seed: of the first weights and of the order.
        progress: show a bar.
    """
    device, dice = best_device(), torch.Generator().manual_seed(seed)
    features_VD, truth_VC = torch.from_numpy(train.features_VD).to(device), torch.from_numpy(train.truth_VC).to(device)
    layer = _fresh_layer(features_VD.shape[1], len(question.outputs), dice).to(device)
    optimizer = optimizer_of(layer.parameters(), cfg.lr)

    def learn(epoch: int) -> float:
        total, steps = torch.zeros((), device=device), 0
        for rows in batches(len(train), cfg.batch, dice):
            chosen = rows.to(device)
            loss = loss_of(question, layer(features_VD[chosen]), truth_VC[chosen]).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total, steps = total + loss.detach(), steps + 1
        return float(total) / steps

    def judge() -> float:
        return headline(question, held_out.truth_VC, answers(question, layer, held_out.features_VD))

    epoch = fit(layer, optimizer, learn, judge if len(held_out) else None, cfg.epochs, progress=progress)
    return LinearProbe(layer.cpu(), epoch)


def answers(question: Question, layer: nn.Linear, features_VD: Features) -> Probabilities:
    """Probability of each output (V, C)."""
    with torch.inference_mode():
        logits = layer(torch.from_numpy(features_VD).to(layer.weight.device))
        found: Probabilities = probabilities(question, logits).cpu().numpy()
    return found


def nearest_answers(train: Examples, features_VD: Features, neighbors: int) -> Probabilities:
    """Mean answer (V, C) of the neighbours by cosine distance."""
    model = KNeighborsRegressor(min(neighbors, len(train)), metric="cosine", algorithm="brute")
    model.fit(train.features_VD, train.truth_VC)
    return np.asarray(model.predict(features_VD), np.float64).reshape(len(features_VD), -1)


def batches(count: int, size: int, dice: torch.Generator) -> list[torch.Tensor]:
    """Rows in a new order, in whole batches; what is left over is dropped, unless there is nothing else."""
    order = torch.randperm(count, generator=dice)
    return [order] if count <= size else list(order[: count - count % size].split(size))  # type: ignore[no-untyped-call]


def _fresh_layer(width: int, outputs: int, dice: torch.Generator) -> nn.Linear:
    """A linear layer with PyTorch's usual first weights, from a generator."""
    layer = nn.Linear(width, outputs)
    bound = width**-0.5
    with torch.no_grad():
        for value in layer.parameters():
            value.uniform_(-bound, bound, generator=dice)
    return layer
