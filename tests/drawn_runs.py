"""A run over a drawn dataset, with published checkpoints of random weights."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.checkpoints import Checkpoint, publish_checkpoint
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.layout import dataset_store, run_store
from pipeline.storage.manifest import FileEntry
from train.export import model_of, save_model

MakeRun = Callable[..., Config]


def small_config(root: Path, *overrides: str) -> Config:
    """The demo at thumbnail size."""
    small = [
        f"storage.root='{root}'",
        f"data.cache_dir='{root / 'cache'}'",
        "corpus.name=drawn",
        "preprocess.size=32",
        "preprocess.patch=8",
        "model.patch=8",
        "data.threads=1",
        "eval.window_stride=8",
    ]
    return load_config("demo", [*small, *overrides])


def publish(cfg: Config, step: int, folder: Path, trained: Config | None = None) -> Checkpoint:
    """Publish random weights as the checkpoint of a step, trained as `cfg` or otherwise."""
    torch.manual_seed(step)
    folder.mkdir(parents=True)
    save_model(folder, trained or cfg, model_of(cfg).state_dict(), {})
    run, prefix, files = run_store(cfg), f"checkpoints/step-{step:08d}/first", []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        run.write(f"{prefix}/{path.name}", data)
        files.append(FileEntry(path.name, len(data), hashlib.sha256(data).hexdigest()))
    return publish_checkpoint(run, step, prefix, files, {"dataset": load_dataset(dataset_store(cfg)).identity})
