"""Where a fresh run's weights come from: `model.init`."""

import logging
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, distributed

from pipeline.checkpoints import fetch_checkpoint, find_checkpoint
from pipeline.errors import UsageError
from pipeline.storage import NotFound, open_store
from pipeline.storage.manifest import sha256_file
from pipeline.text import plural
from train.interop import State, is_encoder, to_own
from train.model import MaskedAutoencoder

_log = logging.getLogger(__name__)
_PICKLED = (".pt", ".pth", ".ckpt", ".bin")
_WEIGHTS = "model.safetensors"
_SHOWN = 3


def start_from(url: str, model: MaskedAutoencoder, key: str = "model.init") -> str:
    """Load weights into a fresh network; an encoder's alone leave the decoder as it is.

    Args:
        url: path or URL of a weights file (`docs/weights.md`), or of a run: its newest checkpoint.
        model: changed in place.
        key: of the configuration that names it, for messages.

    Returns:
        sha256 of the file.

    Raises:
        UsageError: there is no such file, or it holds other weights than this network needs.
        MarlinError: it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="marlin-init-") as folder:
        path = _fetch(url, Path(folder), key)
        digest = sha256_file(path)
        _check_same(url, digest, key)
        try:
            layout, weights = to_own(read_tensors(path))
            load_weights(model, weights)
        except UsageError as error:
            raise UsageError(f"{key}={url}: {error}") from None
    part = "encoder and decoder" if any(not is_encoder(name) for name in weights) else "encoder; the decoder is fresh"
    _log.info("weights from %s (%s names, sha256 %s): %s", url, layout, digest[:12], part)
    if layout in ("videomae", "hugging-face") and model.normalize == "none":
        _log.warning("VideoMAE's weights were trained on normalised pixels: data.normalize=imagenet suits them better")
    return digest


def load_weights(model: MaskedAutoencoder, weights: State) -> None:
    """Put weights under our names into a network, in 32 bits; an encoder's alone leave the decoder as it is.

    Raises:
        UsageError: they are of another network, or not all of them are finite numbers.
    """
    wanted = model.state_dict()
    if not any(not is_encoder(name) for name in weights):
        wanted = {name: value for name, value in wanted.items() if is_encoder(name)}
    shapes = {
        f"{name} {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape
    }
    for what, names in (
        ("lacks", wanted.keys() - weights.keys()),
        ("has too many", weights.keys() - wanted.keys()),
        ("has in another shape", shapes),
    ):
        if names:
            some = ", ".join(sorted(names)[:_SHOWN])
            raise UsageError(
                f"it is not of this network: of {plural(len(wanted), 'tensor')} it {what} {len(names)} ({some}"
                f"{', …' if len(names) > _SHOWN else ''}); check model.size, model.patch and preprocess.size"
            )
    if broken := [
        name for name, value in weights.items() if not (value.is_floating_point() and value.isfinite().all())
    ]:
        raise UsageError(f"{len(broken)} of its tensors hold no finite numbers ({', '.join(sorted(broken)[:_SHOWN])})")
    model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)


def _check_same(url: str, digest: str, key: str) -> None:
    """A path can name another file on another node."""
    if distributed.is_initialized():
        found: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(found, digest)
        others = [str(rank) for rank, other in enumerate(found) if other != found[0]]
        if others:
            raise UsageError(f"{key}={url} is another file for rank {', '.join(others)} than for rank 0")


def _fetch(url: str, folder: Path, key: str) -> Path:
    """A local copy of the file, or the file itself."""
    if PurePosixPath(url).suffix not in (*_PICKLED, ".safetensors"):
        try:
            run, checkpoint = find_checkpoint(url)
        except UsageError as error:
            files = ", ".join((*_PICKLED, ".safetensors"))
            raise UsageError(f"{key}={url} is no weights file ({files}), nor a run ({error})") from None
        return fetch_checkpoint(run, checkpoint, folder, (_WEIGHTS,)) / _WEIGHTS
    return fetch_file(url, folder, key)


def fetch_file(url: str, folder: Path, key: str) -> Path:
    """A local copy of a file by path or URL, or the file itself.

    Raises:
        UsageError: there is none; `key` of the configuration names it.
    """
    parent, _, name = url.rpartition("/")
    store = open_store(parent or ("/" if url.startswith("/") else "."))
    copy = folder / f"weights{PurePosixPath(url).suffix}"
    try:
        if (local := store.local_path(name)) is not None:
            return local
        store.fetch(name, copy)
    except NotFound:
        raise UsageError(f"{key}={url}: no such file") from None
    return copy


def read_tensors(path: Path) -> State:
    """The tensors of a file by name, without the wrappings that trainers put around them. Runs no code of the file.

    Raises:
        UsageError: it is no such file, or holds more than tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise UsageError(f"it is no whole safetensors file: {error}") from None
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):
            raise UsageError("it is no whole PyTorch file") from None
        raise UsageError(
            "it holds more than tensors, and reading that would run code of the file: where you trust it, write its "
            "state dict alone into a new file with torch.save"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UsageError(f"it is no whole PyTorch file ({type(error).__name__})") from None
    for key in ("state_dict", "model", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise UsageError("it holds no weights by name")
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    return {name.removeprefix("module."): value for name, value in tensors.items()}
