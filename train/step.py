"""One update of critic and generator (MARLIN, algorithm 2).

Shapes: B clips, N cubes of a clip, V visible and M hidden ones, P values of a cube, T tubelet frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.config.schema import Config
from train.cubes import patchify
from train.data.batch import Batch
from train.engine import DTYPES, update_parameters
from train.hashing import PENALTY, noise_tensor
from train.masking import mask_clips, visible_count
from train.model import Geometry, gather_cubes, split_indices
from train.nonfinite import NotFinite, Undo, spread, take_step
from train.objective import adversarial_loss, critic_loss, gradient_penalty, normalize_cubes, reconstruction_loss


@dataclass(frozen=True)
class Masked:
    """A micro batch ready for the networks."""

    cubes_BNP: Tensor
    visible_BV: Tensor
    hidden_BM: Tensor
    target_BMP: Tensor
    hash_B: Tensor


class Masker:
    """Cuts clips into cubes, masks them on the device and picks the target."""

    def __init__(self, cfg: Config, geometry: Geometry, device: torch.device) -> None:
        self._mask = cfg.data.mask
        self._normalize = cfg.train.normalize_target
        self._geometry = geometry
        self._device = device
        self._dtype = DTYPES[cfg.train.precision]
        self._keep = visible_count(geometry.tubelets, geometry.patches, self._mask.ratio, self._mask.rounding)

    def __call__(self, batch: Batch) -> Masked:
        """Mask every clip of the batch, all at once."""
        clips_BCTHW = batch.clips_BCTHW.to(self._device, non_blocking=True)
        regions_BTHW = batch.regions_BTHW.to(self._device, non_blocking=True)
        hash_B = batch.hash_B.to(self._device, non_blocking=True)
        mask_BN = mask_clips(self._mask, regions_BTHW, hash_B, self._geometry.side)
        visible_BV, hidden_BM = split_indices(mask_BN, self._keep)
        cubes_BNP = patchify(clips_BCTHW, self._geometry.tubelet, self._geometry.patch)
        target_BMP = gather_cubes(cubes_BNP, hidden_BM)
        if self._normalize:
            target_BMP = normalize_cubes(target_BMP)
        return Masked(cubes_BNP.to(self._dtype), visible_BV, hidden_BM, target_BMP, hash_B)


class Stepper:
    """Updates both networks by one global batch.

    With one micro batch the reconstruction that the critic learns from is the one the generator learns from, so
    the generator runs once. With more, the critic must be updated on the whole global batch before the generator
    sees it: a pass without gradients feeds the critic, a second one trains the generator.
    """

    def __init__(self, cfg: Config, generator: Any, critic: Any | None) -> None:
        self._cfg = cfg.critic
        self._generator = generator
        self._critic = critic

    def __call__(self, batches: Sequence[Masked]) -> dict[str, Tensor]:
        """Train on the micro batches of one update; returns 0-dimensional tensors, still on the device.

        Raises:
            NotFinite: on every rank, if a loss or gradient on any was not finite; both networks are as before.
        """
        shared = self._reconstruct(batches[0]) if len(batches) == 1 else None
        if self._critic is None:
            return self._update_generator(batches, shared)
        undo = Undo(self._critic)
        try:
            metrics = self._update_critic(self._critic, batches, shared)
            return metrics | self._update_generator(batches, shared)
        except NotFinite:
            undo()
            raise

    def _reconstruct(self, batch: Masked) -> Tensor:
        predicted: Tensor = self._generator(batch.cubes_BNP, batch.visible_BV, batch.hidden_BM)
        return predicted

    def _update_critic(self, critic: Any, batches: Sequence[Masked], shared: Tensor | None) -> dict[str, Tensor]:
        losses: list[Tensor] = []
        penalties: list[Tensor] = []
        # The generator stays as it is meanwhile: what several updates need is made once.
        fakes = [self._fake(batch, shared) for batch in batches] if self._cfg.steps > 1 else None
        for repeat in range(self._cfg.steps):
            losses.clear()
            penalties.clear()
            for index, batch in enumerate(batches):
                fake_BMP = fakes[index] if fakes else self._fake(batch, shared)
                real_BMP = batch.target_BMP.to(fake_BMP.dtype)
                loss = critic_loss(critic(real_BMP), critic(fake_BMP))
                losses.append(loss.detach())
                if self._cfg.lipschitz == "gradient-penalty":
                    alpha_BM = penalty_points(batch.hash_B, real_BMP.shape[1], repeat)
                    penalty = gradient_penalty(critic.module, real_BMP, fake_BMP, alpha_BM)
                    penalties.append(penalty.detach())
                    loss = loss + self._cfg.penalty * penalty
                critic.backward(spread(loss))
                norm = take_step(critic, "critic", {"train/critic_loss": torch.stack(losses).mean()})
            if self._cfg.lipschitz == "clip":
                update_parameters(critic, self._clip)
        mean = torch.stack(losses).mean()
        metrics = {"train/critic_loss": mean, "train/wasserstein": -mean}
        if penalties:
            metrics["train/critic_penalty"] = torch.stack(penalties).mean()
        return _with_norm(metrics, "train/critic_grad_norm", norm)

    def _fake(self, batch: Masked, shared: Tensor | None) -> Tensor:
        if shared is not None:
            return shared.detach()
        with torch.no_grad():
            return self._reconstruct(batch)

    def _clip(self, weight: Tensor) -> Tensor:
        return weight.clamp(-self._cfg.clip, self._cfg.clip)

    def _update_generator(self, batches: Sequence[Masked], shared: Tensor | None) -> dict[str, Tensor]:
        parts = []
        for batch in batches:
            predicted_BMP = self._reconstruct(batch) if shared is None else shared
            mse = reconstruction_loss(predicted_BMP, batch.target_BMP)
            adversarial = self._adversarial(predicted_BMP)
            loss = mse if adversarial is None else mse + self._cfg.weight * adversarial
            parts.append(torch.stack([loss.detach(), mse.detach(), loss.detach() - mse.detach()]))
            self._generator.backward(spread(loss))
            norm = take_step(self._generator, "generator", self._generator_metrics(parts))
        return _with_norm(self._generator_metrics(parts), "train/grad_norm", norm)

    def _generator_metrics(self, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        loss_mean, mse_mean, adversarial_mean = torch.stack(list(parts)).mean(0)
        metrics = {"train/loss": loss_mean, "train/mse": mse_mean}
        return metrics if self._critic is None else metrics | {"train/generator_adv": adversarial_mean}

    def _adversarial(self, predicted_BMP: Tensor) -> Tensor | None:
        if self._critic is None:
            return None
        # The bare module, frozen: gradients pass through it to the generator and none stay in it.
        self._critic.module.requires_grad_(False)
        adversarial = adversarial_loss(self._critic.module(predicted_BMP))
        self._critic.module.requires_grad_(True)
        return adversarial


def _with_norm(metrics: dict[str, Tensor], name: str, norm: Tensor | None) -> dict[str, Tensor]:
    return metrics if norm is None else metrics | {name: norm}


def penalty_points(hash_B: Tensor, hidden: int, repeat: int) -> Tensor:
    """Where between a real and a reconstructed cube each point of the gradient penalty lies: (B, M) in [0, 1).

    Args:
        hash_B: int64 hash of each clip, which with the other two decides all.
        hidden: hidden cubes of a clip.
        repeat: which of the critic's updates on these clips it is.
    """
    counter_M = torch.arange(repeat * hidden, (repeat + 1) * hidden, device=hash_B.device)
    return (noise_tensor(hash_B, PENALTY, counter_M) & ((1 << 24) - 1)).float() / (1 << 24)
