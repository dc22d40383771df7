"""How a sync network learns, expert or judge (section 3.2 of the Wav2Lip paper)."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from copy import deepcopy

import torch
from torch import Tensor
from torch.optim import Adam

from eval.features import best_device
from eval.lipsync.draws import MOMENTS, Moment, draw_moments, read_steps, to_faces, to_mel
from eval.lipsync.faces import Image, TalkingFace
from eval.lipsync.lessons import HELD_OUT_STEP, LOOKS, Lesson
from eval.lipsync.mel import Mel
from eval.lipsync.progress import Tensors, load_network, load_optimizer, of_prefix, optimizer_tensors, with_prefix
from eval.lipsync.syncnet import SyncNet, sync_loss
from pipeline.config.evaluation import LipSyncConfig
from pipeline.workers import Workers

_log = logging.getLogger(__name__)


def learn_sync(lesson: Lesson, cfg: LipSyncConfig, begin: SyncNet | None = None) -> SyncNet:
    """A sync network, in evaluation mode: as it erred least on held-out faces, or as it was last where there are none.

    Progress is kept every ``cfg.judge_every`` steps.

    Args:
        lesson: what is learned from.
        cfg: how; `cfg.sync`.
        begin: one of the same channels to begin with, instead of fresh weights.

    Raises:
        MarlinError: its loss is no longer a number.
    """
    with closing(Workers(cfg.threads, "lips")) as pool:
        return _Learner(lesson, cfg, pool, begin).learn()


class _Learner:
    def __init__(self, lesson: Lesson, cfg: LipSyncConfig, pool: Workers, begin: SyncNet | None) -> None:
        self._lesson, self._cfg, self._pool, self._device = lesson, cfg, pool, best_device()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(lesson.seed)
            self._network = SyncNet(cfg.sync.channels)
        if begin is not None:
            self._network.load_state_dict(begin.state_dict())
        self._network.to(self._device)
        self._optimizer = Adam(self._network.parameters(), lr=cfg.sync.lr)
        self._best: tuple[float, Tensors] | None = None

    def learn(self) -> SyncNet:
        lesson, total = self._lesson, self._cfg.sync.steps
        done = self._go_on()
        moments = self._read(lesson.train, range(done, total))
        for step, batch in enumerate(lesson.bar(moments, done, total), start=done + 1):
            self._network.train()
            lesson.update(self._optimizer, self._loss(batch))
            if step % self._cfg.judge_every == 0 or step == total:
                if lesson.held_out:
                    self._look(step)
                self._keep(step)
        if self._best is not None:
            self._network.load_state_dict(self._best[1])
        return self._network.eval()

    def _go_on(self) -> int:
        """Take over the progress of an earlier job; how many steps are done."""
        kept = self._lesson.place.read()
        if kept is None:
            return 0
        load_network("network", self._network, kept)
        load_optimizer("optimizer", self._optimizer, kept)
        if "error" in kept:
            self._best = float(kept["error"]), of_prefix("best", kept)
        return int(kept["step"])

    def _keep(self, step: int) -> None:
        kept = {
            "step": torch.tensor(step),
            **with_prefix("network", self._network.state_dict()),
            **optimizer_tensors("optimizer", self._optimizer),
        }
        if self._best is not None:
            kept |= {"error": torch.tensor(self._best[0], dtype=torch.float64), **with_prefix("best", self._best[1])}
        self._lesson.place.write(kept)

    def _look(self, step: int) -> None:
        looks = range(HELD_OUT_STEP, HELD_OUT_STEP + LOOKS)
        error = self._lesson.look(self._network, self._read(self._lesson.held_out, looks), self._loss)
        _log.info("%s: step %d, loss %.4f on held-out faces", self._lesson.name, step, error)
        if self._best is None or error < self._best[0]:
            self._best = error, deepcopy(self._network.state_dict())

    def _read(self, faces: Sequence[TalkingFace], steps: Sequence[int]) -> Iterator[list[tuple[Image, Mel]]]:
        batch, seed = self._cfg.sync.batch, self._lesson.seed
        drawn: Iterator[list[Moment]] = (draw_moments(faces, batch, seed, step) for step in steps)
        return read_steps(self._pool, self._lesson.reader, drawn)

    def _loss(self, batch: Sequence[tuple[Image, Mel]]) -> Tensor:
        frames, mels = zip(*batch, strict=True)
        lips = self._network.embed_faces(to_faces(frames, self._device))
        sound = self._network.embed_sound(to_mel(mels, self._device))
        return sync_loss(lips.view(-1, MOMENTS, lips.shape[-1]), sound.view(-1, MOMENTS, sound.shape[-1]))
