"""Measures one variant with one seed: probes of held-out people, and reconstructions of them."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning.probing import NO_NETWORK, Subject, probe
from benchmarks.learning.protocol import QUESTIONS, Job, Protocol
from benchmarks.results import machine
from eval.features import best_device
from eval.loading import open_checkpoint
from eval.questions import TOPICS
from eval.tasks import reconstruction
from eval.tasks.context import TaskContext
from pipeline.checkpoints import list_checkpoints
from pipeline.config.schema import Config, MaskConfig
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError
from pipeline.layout import run_store
from pipeline.provenance import versions
from pipeline.storage import open_store
from train.export import model_of
from train.model import MaskedAutoencoder

LOGGED = ("mse", "wasserstein", "critic_grad_norm", "grad_norm", "critic_penalty", "generator_adv", "clips_per_s")
"""What a result keeps of the training's log, `train/<name>`."""

_POINTS = 24
_SHOWN_MASK = MaskConfig(strategy="fasking", ratio=0.9)


def measure(protocol: Protocol, job: Job, root: Path, log: Path | None, threads: int = 1) -> dict[str, Any]:
    """The result of a job, JSON-ready.

    Args:
        protocol: says what is asked.
        job: what is measured; what is to be trained was trained.
        root: datasets and runs.
        log: lines of the training, `MARLIN_LOG=json`; None where nothing was trained.
        threads: of arithmetic.

    Raises:
        MarlinError: the checkpoint or a dataset is missing or damaged.
    """
    torch.set_num_threads(threads)
    cfg, start = protocol.config_of(job, root, threads), time.perf_counter()
    training = read_log(log) if log else {}
    model = trained_model(cfg) if job.trained else fresh_model(cfg)
    found: dict[str, Any] = {}
    stage = protocol.stages[job.stage]
    for labelled in stage.labelled:
        dataset = load_dataset(open_store(getattr(cfg.eval.datasets, labelled)))
        asked = [name for name in QUESTIONS if TOPICS[name].dataset == labelled]
        found |= probe(Subject(cfg, job.variant, model, dataset, asked), stage.probes)
    result = {
        "protocol": protocol.name,
        "digest": protocol.digest(job),
        "stage": job.stage,
        "setting": job.setting or protocol.chosen,
        "variant": job.variant,
        "seed": job.seed,
        "tasks": found,
        "reconstruction": rebuild(cfg, model) if _rebuilds(protocol, cfg, job) else None,
        "training": training,
        "budget": {"steps": cfg.train.steps if job.trained else 0, "clips": _clips(cfg) if job.trained else 0},
        "parameters": sum(value.numel() for value in model.parameters()),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine() | {"device": _device_name()},
        "versions": versions(),
    }
    return result | {"measuring_seconds": round(time.perf_counter() - start, 1)}


def rebuild(cfg: Config, model: MaskedAutoencoder) -> dict[str, dict[str, float]]:
    """PSNR by region of what 90% Fasking hides of held-out people, whatever the variant was trained with.

    Beside the checkpoint's stand those of the clip's mean visible cube and of the nearest visible one.
    """
    store = open_store(cfg.eval.datasets.attributes)
    asked = cfg.model_copy(update={"data": cfg.data.model_copy(update={"mask": _SHOWN_MASK})})
    context = TaskContext(asked, model, load_dataset(store), store, store, False)
    table = reconstruction.run(context).result["regions"]
    return {
        region: {method: reconstruction.psnr(row[method]) for method in reconstruction.METHODS}
        for region, row in table.items()
    }


def read_log(path: Path) -> dict[str, Any]:
    """Some points of the training, spread evenly, and the mean over its last tenth, from lines of JSON.

    Raises:
        MarlinError: there are none.
    """
    lines = map(_fields, path.read_text("utf-8", errors="replace").splitlines())
    rows = list({line["step"]: line for line in lines if "train/mse" in line}.values())  # a step may come again
    if not rows:
        raise MarlinError(f"{path} has no line of a step: was it trained with MARLIN_LOG=json?")
    names = [name for name in LOGGED if f"train/{name}" in rows[0]]
    places = np.unique(np.linspace(0, len(rows) - 1, _POINTS).round().astype(int))
    last = rows[-max(1, len(rows) // 10) :]
    return {
        "steps": [rows[place]["step"] for place in places],
        **{name: [float(f"{rows[place][f'train/{name}']:.5g}") for place in places] for name in names},
        "last": {name: float(np.mean([row[f"train/{name}"] for row in last])) for name in names},
        "skipped": rows[-1]["train/skipped_steps"],
    }


def _fields(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def trained_model(cfg: Config) -> MaskedAutoencoder:
    """The newest checkpoint of a run.

    Raises:
        MarlinError: there is none, or it is damaged.
    """
    run = run_store(cfg)
    published = list_checkpoints(run)
    if not published:
        raise MarlinError(f"{run.url} has no published checkpoint: train it first")
    with open_checkpoint(run, published[-1]) as (model, _):
        return model


def fresh_model(cfg: Config) -> MaskedAutoencoder:
    """The weights that a training of this seed begins with."""
    torch.manual_seed(cfg.train.seed)
    return model_of(cfg).eval()


def _rebuilds(protocol: Protocol, cfg: Config, job: Job) -> bool:
    """Whether pixels come out: normalised targets need the mean and spread of what is hidden to become pixels."""
    return not protocol.stages[job.stage].trained and job.variant not in NO_NETWORK and not cfg.train.normalize_target


def _clips(cfg: Config) -> int:
    return (cfg.train.steps or 0) * cfg.train.global_batch


def _device_name() -> str:
    device = best_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
