"""Linear heads that tasks trained on a checkpoint's features, kept beside the results that name them."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from eval.kept import publish_weights, weights_key
from eval.results import read_result, read_results
from pipeline.checkpoints import Checkpoint
from pipeline.errors import MarlinError
from pipeline.storage import NotFound, Store

HEAD = "head"
"""Field of a result that names the file of its head."""

_NAMES = "names"


@dataclass(frozen=True)
class Output:
    """One output of a head: its name, its row (D,) of the weight, and its bias."""

    name: str
    weight: Tensor
    bias: float

    def score(self, features_BD: Tensor) -> Tensor:
        """What it says to pooled features, before any sigmoid: (B,)."""
        return features_BD @ self.weight.to(features_BD) + self.bias


@dataclass(frozen=True)
class Head:
    """A linear layer on the pooled feature of a clip, ``MaskedAutoencoder.encode(clips, pool=True)``.

    The features are those of the checkpoint as it was published: a task that trains the encoder too leaves no head.
    What was trained on standardised features has their mean and spread folded into it.

    Attributes:
        names: of the C outputs, such as "appearance/young".
        weight: (C, D), float32.
        bias: (C,), float32.

    Raises:
        ValueError: names and shapes do not fit each other, or a name comes twice.
    """

    names: tuple[str, ...]
    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        outputs = len(self.names)
        if self.weight.ndim != 2 or len(self.weight) != outputs or self.bias.shape != (outputs,):
            shapes = f"weight {tuple(self.weight.shape)} and bias {tuple(self.bias.shape)}"
            raise ValueError(f"{outputs} names go with a weight ({outputs}, D) and a bias ({outputs},), not {shapes}")
        if len(set(self.names)) < outputs:
            raise ValueError("two outputs have the same name")

    def output(self, name: str) -> Output:
        """The output of a name.

        Raises:
            ValueError: there is none.
        """
        place = self.names.index(name)
        return Output(name, self.weight[place], float(self.bias[place]))


def heads_of(run: Store, checkpoint: Checkpoint) -> list[str]:
    """The tasks whose results on a checkpoint have a head."""
    return [task for task, result in read_results(run, checkpoint).items() if result.get(HEAD)]


def read_head(run: Store, checkpoint: Checkpoint, task: str) -> Head | None:
    """The head that belongs to a task's published result, or None where there is none.

    Raises:
        MarlinError: the file is damaged or gone.
    """
    name = (read_result(run, checkpoint, task) or {}).get(HEAD)
    if name is None:
        return None
    key = weights_key(checkpoint, name)
    with tempfile.TemporaryDirectory(prefix="marlin-head-") as folder:
        path = Path(folder) / "head.safetensors"
        try:
            run.fetch(key, path)
            return _read(path)
        except (NotFound, SafetensorError, ValueError, TypeError, KeyError) as error:
            raise MarlinError(f"{run.url}/{key} is damaged ({error}): remove {task}.json, and evaluate again") from None


def publish_head(run: Store, checkpoint: Checkpoint, task: str, head: Head) -> str:
    """Store a head, for the result to name its file as `HEAD`; returns the name."""
    names = json.dumps(head.names, ensure_ascii=False)
    tensors = {"weight": head.weight.float().contiguous(), "bias": head.bias.float().contiguous()}
    return publish_weights(run, checkpoint, task, HEAD, save(tensors, {_NAMES: names}))


def _read(path: Path) -> Head:
    with safe_open(path, "pt") as file:
        names = json.loads((file.metadata() or {})[_NAMES])
        return Head(tuple(names), file.get_tensor("weight"), file.get_tensor("bias"))
