"""How a generator learns: to draw what is hidden, in step with the sound (Wav2Lip, sections 3.3 and 3.4)."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from eval.features import best_device
from eval.lipsync.critic import VisualCritic, critic_loss, fooling_loss
from eval.lipsync.draws import Clip, draw_clips, read_steps, to_faces, to_mel
from eval.lipsync.faces import Image, TalkingFace
from eval.lipsync.generator import Generator
from eval.lipsync.lessons import HELD_OUT_STEP, LOOKS, Lesson
from eval.lipsync.mel import Mel
from eval.lipsync.progress import load_network, load_optimizer, of_prefix, optimizer_tensors, with_prefix
from eval.lipsync.syncnet import SyncNet, expert_loss
from pipeline.config.evaluation import LipSyncConfig
from pipeline.workers import Workers

_log = logging.getLogger(__name__)

BETAS = (0.5, 0.999)  # section 4 of the paper

_Read = Sequence[tuple[Image, Image, Mel, Mel]]


def learn_generator(lesson: Lesson, cfg: LipSyncConfig, generator: Generator, expert: SyncNet) -> Generator:
    """Have a generator learn; gives it back in evaluation mode.

    The expert's loss counts from the look on at which it is below ``cfg.sync_from``, as in the released code: before
    that, faces are too coarse for it to say anything. Progress is kept every ``cfg.judge_every`` steps.

    Args:
        lesson: what from; looks are at its training faces where none are held out.
        cfg: steps, batch, rate and the weights of the losses.
        generator: changed in place.
        expert: stays as it is.

    Raises:
        MarlinError: the loss is no longer a number.
    """
    with closing(Workers(cfg.threads, "faces")) as pool:
        return _Learner(lesson, cfg, generator, expert, pool).learn()


@dataclass(frozen=True)
class _Clips:
    """Clips of a step on the device of the networks."""

    target_BT3SS: Tensor
    reference_BT3SS: Tensor
    around_BTMC: Tensor
    fives_BNMC: Tensor


class _Learner:
    def __init__(
        self, lesson: Lesson, cfg: LipSyncConfig, generator: Generator, expert: SyncNet, pool: Workers
    ) -> None:
        self._lesson, self._cfg, self._pool, self._device = lesson, cfg, pool, best_device()
        self._generator = generator.to(self._device)
        self._expert = expert.to(self._device).eval().requires_grad_(False)
        self._sync_counts = False
        learning = [value for value in generator.parameters() if value.requires_grad]
        self._optimizer = Adam(learning, lr=cfg.lr, betas=BETAS)
        self._critic: VisualCritic | None = None
        if cfg.gan_weight:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(lesson.seed)
                self._critic = VisualCritic(generator.form.size, 2 * cfg.channels).to(self._device)
            self._critic_optimizer = Adam(self._critic.parameters(), lr=cfg.lr, betas=BETAS)

    def learn(self) -> Generator:
        lesson, total = self._lesson, self._cfg.steps
        done = self._go_on()
        for step, read in enumerate(
            lesson.bar(self._read(lesson.train, range(done, total)), done, total), start=done + 1
        ):
            self._generator.train()
            clips = self._clips(read)
            drawn = self._draw(clips)
            lesson.update(self._optimizer, self._loss(clips, drawn))
            if self._critic is not None:
                lesson.update(self._critic_optimizer, critic_loss(self._critic, drawn, clips.target_BT3SS))
            if step % self._cfg.judge_every == 0:
                if self._cfg.sync_weight and not self._sync_counts:
                    self._look(step)
                self._keep(step)
        return self._generator.eval()

    def _go_on(self) -> int:
        """Take over the progress of an earlier job; how many steps are done."""
        kept = self._lesson.place.read()
        if kept is None:
            return 0
        self._generator.load_weights(of_prefix("network", kept))
        load_optimizer("optimizer", self._optimizer, kept)
        if self._critic is not None:
            load_network("critic", self._critic, kept)
            load_optimizer("critic_optimizer", self._critic_optimizer, kept)
        self._sync_counts = bool(kept["sync_counts"])
        return int(kept["step"])

    def _keep(self, step: int) -> None:
        kept = {
            "step": torch.tensor(step),
            "sync_counts": torch.tensor(self._sync_counts),
            **with_prefix("network", self._generator.weights()),
            **optimizer_tensors("optimizer", self._optimizer),
        }
        if self._critic is not None:
            kept |= with_prefix("critic", self._critic.state_dict())
            kept |= optimizer_tensors("critic_optimizer", self._critic_optimizer)
        self._lesson.place.write(kept)

    def _loss(self, clips: _Clips, drawn_BT3SS: Tensor) -> Tensor:
        """Weighted sum of what is drawn wrong, what is out of step, and what the critic sees through (equation 5)."""
        sync = self._cfg.sync_weight if self._sync_counts else 0.0
        fooling = self._cfg.gan_weight
        loss = (1 - sync - fooling) * F.l1_loss(drawn_BT3SS, clips.target_BT3SS)
        if sync:
            loss = loss + sync * expert_loss(self._expert, drawn_BT3SS, clips.fives_BNMC)
        if self._critic is not None:
            self._critic.requires_grad_(False)
            loss = loss + fooling * fooling_loss(self._critic, drawn_BT3SS)
            self._critic.requires_grad_(True)
        return loss

    def _look(self, step: int) -> None:
        looks = range(HELD_OUT_STEP, HELD_OUT_STEP + LOOKS)
        read = self._read(self._lesson.held_out or self._lesson.train, looks)
        error = self._lesson.look(self._generator, map(self._clips, read), self._out_of_step)
        _log.info("%s: step %d, loss of the expert %.4f on held-out clips", self._lesson.name, step, error)
        self._sync_counts = error < self._cfg.sync_from

    def _out_of_step(self, clips: _Clips) -> Tensor:
        return expert_loss(self._expert, self._draw(clips), clips.fives_BNMC)

    def _draw(self, clips: _Clips) -> Tensor:
        drawn: Tensor = self._generator(clips.target_BT3SS, clips.reference_BT3SS, clips.around_BTMC)
        return drawn

    def _read(
        self, faces: Sequence[TalkingFace], steps: Sequence[int]
    ) -> Iterator[list[tuple[Image, Image, Mel, Mel]]]:
        frames, seed = self._generator.form.frames, self._lesson.seed
        count = max(1, self._cfg.batch // frames)
        drawn: Iterator[list[Clip]] = (draw_clips(faces, count, frames, seed, step) for step in steps)
        return read_steps(self._pool, self._lesson.reader, drawn)

    def _clips(self, read: _Read) -> _Clips:
        targets, references, around, fives = zip(*read, strict=True)
        device = self._device
        return _Clips(
            to_faces(targets, device), to_faces(references, device), to_mel(around, device), to_mel(fives, device)
        )
