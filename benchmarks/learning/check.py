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
from benchmarks.learning.probing import Subject, probe
from benchmarks.learning.protocol import Job, Protocol
from benchmarks.learning.table import SCORE
from pipeline.config.load import override
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError
from pipeline.storage import open_store

PARTS = ("left-eye", "right-eye", "nose", "mouth")
QUESTIONS = ("appearance", "action")
MARGIN = 1.6
"""Decibels that a training must exceed; docs/learning.md has what was measured on both sides."""


@dataclass(frozen=True)
class Learned:
    """What a training came to.

    Attributes:
        gain: macro AUC of linear probes on held-out people, less that of the weights that the training began with;
            mean over the questions.
        margin: PSNR of hidden facial parts of held-out people in dB, less that of the better of both guesses; mean over
            the parts.
    """

    gain: float
    margin: float

    @property
    def enough(self) -> bool:
        """Whether the method works. So short a training gains too little in probes to be judged by them."""
        return self.margin > MARGIN


def learn(protocol: Protocol, job: Job, root: Path, *, how: str = "", threads: int = 1) -> Learned:
    """Train a variant in this process, and see what it learned.

    Args:
        protocol: its labelled corpus is that of the attributes.
        job: the variant.
        root: datasets and runs.
        how: what is broken, one of `BREAKS`; empty: nothing.
        threads: of arithmetic.
    """
    from train.launch import run_training

    cfg = override(protocol.config_of(job, root, threads), [f"run.name={job.name}-{how or 'whole'}"])
    torch.set_num_threads(threads)
    with broken(how):
        run_training(cfg)
        dataset = load_dataset(open_store(cfg.eval.datasets.attributes))
        scores = []
        for model in (trained_model(cfg), fresh_model(cfg)):
            found = probe(Subject(cfg, job.variant, model, dataset, QUESTIONS), ["linear"])
            scores.append([found[f"{question}-linear"]["shares"]["1"][SCORE] for question in QUESTIONS])
        table = rebuild(cfg, trained_model(cfg))
    margins = [table[part]["checkpoint"] - max(table[part]["mean"], table[part]["nearest"]) for part in PARTS]
    return Learned(float(np.mean(scores[0]) - np.mean(scores[1])), float(np.mean(margins)))


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
