"""What learning a sync network and learning a generator have in common."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from eval.lipsync.faces import FaceReader, TalkingFace
from eval.lipsync.progress import Place
from pipeline.errors import MarlinError

T = TypeVar("T")

HELD_OUT_STEP = 1 << 40
"""Held-out clips are those of this step and the next ones, which no training reaches."""

LOOKS = 4
"""Batches of a look at held-out clips."""


@dataclass(frozen=True)
class Lesson:
    """What is learned from, and how.

    Attributes:
        name: of the network, for people.
        reader: gives the faces.
        train: to learn from.
        held_out: to look at meanwhile.
        seed: of all chance.
        place: where progress is kept.
        progress: show a bar.
    """

    name: str
    reader: FaceReader
    train: Sequence[TalkingFace]
    held_out: Sequence[TalkingFace]
    seed: int
    place: Place
    progress: bool = False

    def bar(self, steps: Iterator[T], done: int, total: int) -> "tqdm[T]":
        """The steps under a bar, of which some are done."""
        return tqdm(steps, desc=self.name, initial=done, total=total, unit="step", disable=not self.progress)

    def update(self, optimizer: Optimizer, loss: Tensor) -> None:
        """One step of an optimizer.

        Raises:
            MarlinError: the loss is no number.
        """
        self.check(loss)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def look(self, network: nn.Module, batches: Iterator[Any], loss_of: Callable[[Any], Tensor]) -> float:
        """Mean loss over some batches, in evaluation mode and without gradients.

        Raises:
            MarlinError: it is no number.
        """
        network.eval()
        with torch.inference_mode():
            loss = torch.stack([loss_of(batch) for batch in batches]).mean()
        self.check(loss)
        return float(loss)

    def check(self, loss: Tensor) -> None:
        """Refuses a loss that is no number."""
        if not bool(loss.isfinite()):
            raise MarlinError(
                f"the loss of the {self.name} is {loss.item()}: lower eval.lipsync.lr and eval.lipsync.sync.lr"
            )
