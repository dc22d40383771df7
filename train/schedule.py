"""Learning rate as a pure function of the step, so that resuming has no schedule to restore."""

import math

from pipeline.config.schema import TrainConfig

_BASE_BATCH = 256


def learning_rate(cfg: TrainConfig, step: int, total: int) -> float:
    """Linear warm-up from 0, then half a cosine (the paper's schedule).

    Args:
        cfg: base and final rates, given at a global batch of 256 and scaled to ``global_batch``.
        step: index of the update, from 0.
        total: updates of the whole training.
    """
    scale = cfg.global_batch / _BASE_BATCH
    peak, floor = cfg.base_lr * scale, cfg.min_lr * scale
    warmup = round(cfg.warmup * total)
    if step < warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
