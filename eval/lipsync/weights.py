"""Networks of lip synchronisation as files: safetensors, and the published layout of Wav2Lip's expert."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from eval.lipsync.generator import Form, Generator
from eval.lipsync.syncnet import SyncNet
from pipeline.errors import MarlinError, UsageError
from train.init import fetch_file, read_tensors

_FORM = "generator"
_FIRST = "face_encoder.0.conv_block.0.weight"


def sync_bytes(network: SyncNet) -> bytes:
    """A sync network as a safetensors file, under the published names."""
    return save(_plain(network.state_dict()))


def load_sync(url: str, key: str) -> SyncNet:
    """A sync network in evaluation mode: one of ours, or Wav2Lip's `lipsync_expert.pth`. Runs no code of the file.

    Args:
        url: path or URL.
        key: of the configuration that names it, for messages.

    Raises:
        UsageError: there is no such file, or it holds another network.
    """
    with tempfile.TemporaryDirectory(prefix="marlin-sync-") as folder:
        path = fetch_file(url, Path(folder), key)
        try:
            return sync_of_tensors(read_tensors(path))
        except UsageError as error:
            raise UsageError(f"{key}={url}: {error}") from None


def sync_of_tensors(tensors: dict[str, Tensor]) -> SyncNet:
    """A sync network of its tensors, as wide as they are.

    Raises:
        UsageError: they are of another network, or not all of them are finite numbers.
    """
    if _FIRST not in tensors:
        raise UsageError(f"it is no sync network in the layout of Wav2Lip's color_syncnet: it lacks {_FIRST}")
    network = SyncNet(len(tensors[_FIRST]))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        text = " ".join(str(error).split())[:200]
        raise UsageError(f"it is no sync network in the layout of Wav2Lip's color_syncnet: {text}") from None
    if broken := [name for name, value in tensors.items() if not value.isfinite().all()]:
        raise UsageError(f"{len(broken)} of its tensors hold no finite numbers ({', '.join(sorted(broken)[:3])})")
    return network.eval()


def generator_bytes(generator: Generator) -> bytes:
    """A generator as a safetensors file that says its form."""
    return save(_plain(generator.weights()), {_FORM: json.dumps(asdict(generator.form))})


def read_generator(path: Path) -> Generator:
    """A generator in evaluation mode.

    Raises:
        MarlinError: the file is damaged, or holds something else.
    """
    try:
        with safe_open(path, "pt") as file:
            form = Form(**json.loads((file.metadata() or {})[_FORM]))
        generator = Generator(form)
        generator.load_weights(load_file(path))
    except KeyError:
        raise MarlinError(
            f"{path} holds no lip-sync generator: give what `marlin eval eval.tasks=[lipsync]` left"
        ) from None
    except UsageError as error:  # of its form
        raise MarlinError(f"{path}: {error}") from None
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise MarlinError(f"{path} is no whole lip-sync generator: {' '.join(str(error).split())[:200]}") from None
    return generator.eval()


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
