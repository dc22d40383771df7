"""The official training step, written with the layers of the published package (`marlin-pytorch`): the peer of ours.

What makes it differ from ours, as published: every cube is embedded, then the visible ones are picked by boolean masks;
attention writes its whole matrix; and the generator runs twice a step, forward and backward, the first time for the
critic, whose gradient in the generator is thrown away.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.config.schema import Config
from tests.published import published_network
from train.cubes import patchify
from train.export import geometry_of
from train.model import build_critic
from train.sizes import SIZES


class OfficialStep:
    """Both networks and their optimisers; a call is one update of each on clips and their masks."""

    def __init__(self, cfg: Config, device: torch.device, precision: str) -> None:
        self._cfg, self._geometry = cfg, geometry_of(cfg)
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
        size = SIZES[cfg.model.size]
        self.generator = published_network(size.encoder, size.decoder, self._geometry).to(device)
        self.critic = build_critic(cfg.model.size, self._geometry).to(device)
        rule: dict[str, Any] = {"lr": 1e-4, "betas": cfg.train.betas, "weight_decay": cfg.train.weight_decay}
        self._rules = [torch.optim.AdamW(net.parameters(), **rule) for net in (self.generator, self.critic)]

    def __call__(self, clips_BCTHW: Tensor, mask_BN: Tensor) -> None:
        """Update the critic, then the generator."""
        cubes_BNP = patchify(clips_BCTHW, self._geometry.tubelet, self._geometry.patch)
        real_BMP = cubes_BNP[~mask_BN].view(len(cubes_BNP), -1, cubes_BNP.shape[-1])
        with self._autocast:
            fake_BMP = self.generator(clips_BCTHW, mask_BN)
            loss = self.critic(fake_BMP).mean() - self.critic(real_BMP).mean()
        self._update(1, loss)
        with self._autocast:
            fake_BMP = self.generator(clips_BCTHW, mask_BN)
            loss = (fake_BMP - real_BMP).square().mean() - self._cfg.critic.weight * self.critic(fake_BMP).mean()
        self._update(0, loss)

    def _update(self, which: int, loss: Tensor) -> None:
        for network in (self.generator, self.critic):
            network.zero_grad()
        loss.backward()
        self._rules[which].step()
