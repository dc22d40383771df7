"""Small networks and random micro batches for tests of single updates."""

from typing import Any

import torch
from drawn import MakeConfig

from pipeline.config.schema import Config, CriticConfig
from train.engine import make_engine, set_learning_rate
from train.join import join_world
from train.model import Critic, Geometry, MaskedAutoencoder
from train.sizes import ViTSize
from train.step import Masked, Stepper

GEOMETRY = Geometry(frames=4, size=16, patch=8)
RATE = 1e-3
CLIPS = 4


def networks() -> tuple[MaskedAutoencoder, Critic]:
    torch.manual_seed(3)
    pair = MaskedAutoencoder(GEOMETRY, ViTSize(32, 2, 2), ViTSize(16, 1, 2)), Critic(GEOMETRY.cube, 32)
    return pair[0].to(torch.get_default_dtype()), pair[1]


def random_masked(seed: int, clips: int) -> Masked:
    dice = torch.Generator().manual_seed(seed)
    cubes = torch.rand(clips, GEOMETRY.tokens, GEOMETRY.cube, generator=dice)
    order = torch.rand(clips, GEOMETRY.tokens, generator=dice).argsort(1)
    visible, hidden = order[:, :2].sort(1)[0], order[:, 2:].sort(1)[0]
    target = cubes.gather(1, hidden[..., None].expand(-1, -1, GEOMETRY.cube))
    return Masked(cubes, visible, hidden, target, torch.randint(1 << 62, (clips,), generator=dice))


def batches_of(step: int, accumulation: int) -> list[Masked]:
    return [random_masked(100 * step + index, CLIPS // accumulation) for index in range(accumulation)]


def configure(make_config: MakeConfig, critic: dict[str, Any], accumulation: int) -> Config:
    train = {"global_batch": CLIPS, "micro_batch": CLIPS // accumulation}
    cfg = make_config(train=train)
    return cfg.model_copy(update={"critic": CriticConfig(**critic)})


def build(cfg: Config, accumulation: int, stage: int) -> tuple[Stepper, Any, Any]:
    join_world()
    generator, critic = networks()
    engines = [make_engine(m, cfg.train, accumulation, s) for m, s in ((generator, stage), (critic, min(stage, 1)))]
    for engine in engines:
        set_learning_rate(engine, RATE)
    return Stepper(cfg, engines[0], engines[1] if cfg.critic.weight else None), *engines
