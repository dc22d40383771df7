"""How far a network has learned, kept in storage, so that a killed job goes on from there.

What is drawn for a step follows from the step alone: who goes on learns the same as who was never stopped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.errors import MarlinError
from pipeline.storage import NotFound, Store

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Place:
    """Where the progress of a network is kept."""

    store: Store
    key: str

    def read(self) -> Tensors | None:
        """What was written last, or None.

        Raises:
            MarlinError: the file is damaged.
        """
        try:
            return load(self.store.read(self.key))
        except NotFound:
            return None
        except SafetensorError as error:
            raise MarlinError(f"{self.store.url}/{self.key} is damaged ({error}): delete it to begin anew") from None

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace what is there."""
        plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        self.store.write(self.key, save(plain))


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Tensors under longer names."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def of_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """The tensors of a prefix, under their own names."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def optimizer_tensors(prefix: str, optimizer: Optimizer) -> Tensors:
    """The moments of an optimizer as tensors by name."""
    state: Mapping[int, Mapping[str, Tensor]] = optimizer.state_dict()["state"]
    return {f"{prefix}.{place}.{name}": value for place, own in state.items() for name, value in own.items()}


def load_optimizer(prefix: str, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the moments of `optimizer_tensors` back."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in of_prefix(prefix, tensors).items():
        place, _, what = name.partition(".")
        state.setdefault(int(place), {})[what] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def load_network(prefix: str, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put the weights of a network back."""
    network.load_state_dict(of_prefix(prefix, tensors))
