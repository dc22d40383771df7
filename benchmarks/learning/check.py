"""The short form: whether a training learns anything, by a figure that a broken method does not reach."""

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.learning.broken import BREAKS, broken
from benchmarks.learning.measure import fresh_model, rebuild, trained_model
from benchmarks.learning.protocol import Job, Protocol
from pipeline.config.load import override
from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from train.model import MaskedAutoencoder

PARTS, GUESSES = ("left-eye", "right-eye", "nose", "mouth"), ("mean", "nearest")
MARGIN, OWED = 0.8, 0.3
"""Decibels that a training must exceed; docs/learning.md has what was measured on both sides."""


@dataclass(frozen=True)
class Learned:
    """What a training came to: PSNR of hidden facial parts of people it never saw, in dB, mean over the parts.

    Attributes:
        margin: above the better of two guesses, the mean visible cube and the nearest one.
        owed: above what is left with the encoder as it began.
    """

    margin: float
    owed: float

    @property
    def enough(self) -> bool:
        """Whether the method works."""
        return self.margin > MARGIN and self.owed > OWED


def only_variant(protocol: Protocol) -> str:
    """What is trained.

    Raises:
        UsageError: there are several.
    """
    if len(protocol.variants) > 1:
        raise UsageError(f"protocol {protocol.name} has several variants: the check is for one (-p check)")
    return next(iter(protocol.variants))


def learn(protocol: Protocol, job: Job, root: Path, *, how: str = "", threads: int = 1) -> Learned:
    """Train in this process, and see what was learned.

    Args:
        protocol: what is drawn, and how it is trained.
        job: the variant with a seed.
        root: datasets and runs.
        how: what is broken, one of `BREAKS`; empty: nothing.
        threads: of arithmetic.
    """
    from train.launch import run_training

    cfg = override(protocol.config_of(job, root, threads), [f"run.name={job.name}-{how or 'whole'}"])
    torch.set_num_threads(threads)
    with broken(how):
        run_training(cfg)
        model, began = trained_model(cfg), fresh_model(cfg)
        margin = _margin(cfg, model)
        for part in ("embed", "encoder"):
            model.get_submodule(part).load_state_dict(began.get_submodule(part).state_dict())
        return Learned(margin, margin - _margin(cfg, model))


def _margin(cfg: Config, model: MaskedAutoencoder) -> float:
    table = rebuild(cfg, model)
    return float(np.mean([table[part]["checkpoint"] - max(table[part][guess] for guess in GUESSES) for part in PARTS]))


def calibrate(protocol: str, root: Path, seeds: Sequence[int], at_once: int) -> list[dict[str, object]]:
    """What trainings come to, whole and broken, with several seeds: each in a process of its own.

    Raises:
        MarlinError: one failed.
    """

    def one(how: str, seed: int) -> dict[str, object]:
        command = [sys.executable, "-m", "benchmarks.learning", "check", "-p", protocol, "--root", str(root)]
        command += ["--seed", str(seed), *(["--break", how] if how else [])]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise MarlinError(f"{how or 'whole'} with seed {seed} failed: {ended.stderr.strip()[-300:]}")
        found: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
        return found

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda pair: one(*pair), product(("", *BREAKS), seeds)))
