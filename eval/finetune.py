"""Answers from clips: fine-tuning of the encoder, or attentive probing of the frozen one, in one process or several.

Shapes: V videos, B clips of a step on this rank, C outputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from eval.classifier import Classifier
from eval.clips import Place, all_windows, centre_clip, random_clip
from eval.features import WindowSpec
from eval.fitting import fit, loss_of, optimizer_of, probabilities
from eval.probe import batches
from eval.questions import Question, Video
from eval.ranks import Rank
from eval.scores import Probabilities, headline
from pipeline.config.schema import Config
from pipeline.storage import open_store
from pipeline.workers import Workers, work_ahead
from train.export import model_of

WEIGHTS, RESULT = "model.safetensors", "answers.npz"


@dataclass(frozen=True)
class Labelled:
    """Videos and their true answers."""

    videos: tuple[Video, ...]
    truth_VC: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.videos)


@dataclass(frozen=True)
class Finetuning:
    """A classifier to be made of the model in `WEIGHTS`: work for each rank of `eval.ranks.run_ranks`.

    Attributes:
        question: what is asked.
        outputs: how many answers it has.
        cfg: the configuration that the model was trained with, with the settings of `eval.finetune`.
        attentive: keep its encoder frozen and learn to pool its tokens.
        train: what is learned from.
        held_out: what the best epoch is chosen on, by the middle clip of each; empty: the last epoch is taken.
        scored: videos to answer in the end, by the mean over all their windows.
        dataset: URL of the frames.
        spec: windows, and how many go through the network at once when answers are asked for.
        seed: of the head's first weights, the order and the clips.
        progress: show a bar.
    """

    question: Question
    cfg: Config
    attentive: bool
    train: Labelled
    held_out: Labelled
    scored: tuple[Video, ...]
    dataset: str
    spec: WindowSpec
    seed: int
    progress: bool = False

    def __call__(self, rank: Rank, folder: Path) -> None:
        """Learn, and answer; rank 0 writes `RESULT`: found_VC and epoch."""
        with closing(Workers(self.cfg.eval.finetune.threads, "clips")) as pool:
            _Learner(self, rank, pool, load_file(folder / WEIGHTS)).work(folder)


class _Learner:
    """One rank at work."""

    def __init__(self, job: Finetuning, rank: Rank, pool: Workers, weights: Mapping[str, torch.Tensor]) -> None:
        self._job, self._rank, self._pool, self._cfg = job, rank, pool, job.cfg.eval.finetune
        self._store = open_store(job.dataset)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seed)  # every rank begins with the same head
            model = model_of(job.cfg)
            model.load_state_dict(weights)
            self._classifier = Classifier(model, len(job.question.outputs), attentive=job.attentive)
        model.encoder.recompute = self._cfg.recompute
        self._classifier.to(rank.device)
        self._network: nn.Module = self._classifier
        if rank.size > 1:
            self._network = DistributedDataParallel(self._classifier, forward_sync_buffers=False)
        self._dice = torch.Generator().manual_seed(job.seed)
        learning = [value for value in self._classifier.parameters() if value.requires_grad]
        self._optimizer = optimizer_of(learning, self._cfg.lr)

    def work(self, folder: Path) -> None:
        job = self._job
        judge = self._judge if len(job.held_out) else None
        progress = job.progress and self._rank.number == 0
        epoch = fit(self._classifier, self._optimizer, self._learn, judge, self._cfg.epochs, progress=progress)
        found_VC = self._answer([all_windows(video, job.spec) for video in job.scored])
        if self._rank.number == 0:
            np.savez(folder / RESULT, found_VC=found_VC, epoch=epoch)

    def _learn(self, epoch: int) -> float:
        """One pass: a random clip of each video, `cfg.batch` of them a step over all ranks."""
        train = self._job.train
        groups = [rows.tolist() for rows in batches(len(train), self._cfg.batch, self._dice)]
        mine = [self._share(rows) for rows in groups]
        places = ([random_clip(train.videos[row], self._job.spec, self._job.seed, epoch) for row in r] for r in mine)
        self._classifier.train()
        total = torch.zeros((), device=self._rank.device)
        for rows, chosen, frames_BTHWC in zip(groups, mine, self._read(places), strict=True):
            # A rank whose share is smaller repeats a clip, which then weighs nothing.
            real = len(range(self._rank.number, len(rows), self._rank.size))
            with self._arithmetic():
                logits_BC = self._network(frames_BTHWC)
            truth_BC = torch.from_numpy(train.truth_VC[chosen]).to(self._rank.device)
            loss = loss_of(self._job.question, logits_BC, truth_BC)[:real].sum() / len(rows)
            self._optimizer.zero_grad()
            # Gradients are averaged over the ranks, and the mean over all clips is wanted.
            (loss * self._rank.size).backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            total += loss.detach()
        return float(sum(self._rank.gather(float(total)))) / len(groups)

    def _share(self, rows: Sequence[int]) -> list[int]:
        """This rank's part of the clips of a step; equally many on every rank."""
        most = -(-len(rows) // self._rank.size)
        mine = list(rows[self._rank.number :: self._rank.size])
        return mine + list(rows[:1]) * (most - len(mine))

    def _judge(self) -> float:
        held_out, question = self._job.held_out, self._job.question
        found_VC = self._answer([[centre_clip(video, self._job.spec)] for video in held_out.videos])
        return headline(question, held_out.truth_VC, found_VC)

    def _answer(self, places: Sequence[Sequence[Place]]) -> Probabilities:
        """Mean probability (V, C) over the places of each video; each rank takes its share of the videos."""
        mine = range(self._rank.number, len(places), self._rank.size)
        owners = [video for video in mine for _ in places[video]]
        flat = [place for video in mine for place in places[video]]
        size = self._job.spec.batch
        groups = (flat[first : first + size] for first in range(0, len(flat), size))
        self._classifier.eval()
        parts = []
        with torch.inference_mode():
            for frames_BTHWC in self._read(groups):
                with self._arithmetic():
                    logits_BC = self._classifier(frames_BTHWC)
                parts.append(probabilities(self._job.question, logits_BC).cpu().numpy())
        found = np.zeros((len(places), len(self._job.question.outputs)), np.float64)
        if parts:
            np.add.at(found, owners, np.concatenate(parts))
        summed = np.sum(self._rank.gather(found), axis=0)
        out: Probabilities = summed / np.array([[len(each)] for each in places])
        return out

    def _read(self, groups: Iterator[list[Place]]) -> Iterator[torch.Tensor]:
        """Frames of each group, while the next ones are being decoded."""
        for frames in work_ahead(self._pool, lambda place: place.read(self._store), groups, depth=1):
            yield torch.from_numpy(np.stack(frames)).to(self._rank.device)

    def _arithmetic(self) -> torch.autocast:
        enabled = self._cfg.precision == "bf16"
        return torch.autocast(self._rank.device.type, torch.bfloat16, enabled=enabled)
