"""How long a classifier learns, and which of its epochs counts: the official code's rules.

The learning rate is halved after 7 epochs in which the training loss did not fall, learning ends below a rate of 1e-6,
and the weights of the epoch with the best held-out score are kept.
"""

import math
from collections.abc import Callable, Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from eval.questions import Question
from pipeline.errors import MarlinError

BETAS = (0.5, 0.9)
FACTOR, PATIENCE, LEAST_RATE = 0.5, 7, 1e-6

Train = Callable[[int], float]
"""Learns for an epoch, given its number; gives the mean loss."""

Judge = Callable[[], float]
"""The held-out score, of which more is better."""


def optimizer_of(parameters: Iterable[nn.Parameter], lr: float) -> Adam:
    """Adam with the published momenta and no weight decay."""
    return Adam(parameters, lr=lr, betas=BETAS)


def fit(
    model: nn.Module, optimizer: Optimizer, train: Train, judge: Judge | None, epochs: int, *, progress: bool = False
) -> int:
    """Learn until the rate is spent, at most so many epochs; the model is then that of its best epoch.

    Args:
        model: what learns; only parameters that do are kept and restored.
        optimizer: its rate is changed.
        train: learns for an epoch.
        judge: None keeps the last epoch.
        epochs: most of them.
        progress: show a bar.

    Returns:
        The epoch that counts, from 1.

    Raises:
        MarlinError: the loss is not finite any more.
    """
    schedule = ReduceLROnPlateau(optimizer, factor=FACTOR, patience=PATIENCE)
    best, best_score, kept = 0, -math.inf, dict[str, Tensor]()
    bar = tqdm(range(1, epochs + 1), desc="learn", unit="epoch", disable=not progress)
    for epoch in bar:
        loss = train(epoch)
        if not math.isfinite(loss):
            raise MarlinError(f"the training loss of epoch {epoch} is {loss}: set a lower learning rate, or fp32")
        schedule.step(loss)
        score = judge() if judge else float(epoch)
        bar.set_postfix({"loss": f"{loss:.4f}", **({"held-out": f"{score:.4f}"} if judge else {})})
        if score > best_score:
            best, best_score = epoch, score
            if judge:
                kept = {name: deepcopy(value.detach()) for name, value in _learning(model)}
        if optimizer.param_groups[0]["lr"] < LEAST_RATE:
            break
    bar.close()
    with torch.no_grad():
        for name, value in _learning(model):
            if name in kept:
                value.copy_(kept[name])
    return best


def loss_of(question: Question, logits_BC: Tensor, truth_BC: Tensor) -> Tensor:
    """Cross-entropy of each clip or video (B), the mean over its outputs where each is an answer of its own."""
    if question.kind == "class":
        return F.cross_entropy(logits_BC, truth_BC.argmax(1), reduction="none")
    return F.binary_cross_entropy_with_logits(logits_BC, truth_BC.float(), reduction="none").mean(1)


def probabilities(question: Question, logits_BC: Tensor) -> Tensor:
    """Of each output (B, C), in double precision: those near 1 would be rounded to the same."""
    logits_BC = logits_BC.double()
    return logits_BC.softmax(1) if question.kind == "class" else logits_BC.sigmoid()


def _learning(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad]
