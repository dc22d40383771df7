"""Floating point operations of an update, counted from the network itself, and how much of a device's peak they use."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pipeline.config.schema import Config
from train.export import geometry_of, model_of
from train.masking import visible_count
from train.model import build_critic
from train.objective import adversarial_loss, critic_loss, gradient_penalty, reconstruction_loss

# Dense matrix products in TFLOP/s, from the makers' data sheets: in 16 bits summed in 32, and in 32 bits without TF32.
_PEAK_TFLOPS = {
    "RTX A6000": (154.8, 38.7),
    "A40": (149.7, 37.4),
    "A100": (312.0, 19.5),
    "L40S": (362.0, 91.6),
    "RTX 6000 Ada": (364.2, 91.1),
    "RTX 4090": (165.2, 82.6),
    "H100 PCIe": (756.0, 51.0),
    "H100 NVL": (835.0, 60.0),
    "H100": (989.4, 66.9),
    "H200 NVL": (835.0, 60.0),
    "H200": (989.4, 66.9),
}


def update_flops(cfg: Config, micro_batches: int) -> int:
    """Operations of an update on a global batch, those of matrix products; a multiplication and an addition are two.

    Counted by running one clip through the networks without data (PyTorch's meta device), so it holds for every
    configuration. Recomputed activations do not count, as is usual for utilisation.

    Args:
        cfg: the run.
        micro_batches: micro batches of an update; with more than one the critic has a generator pass of its own.
    """
    geometry = geometry_of(cfg)
    keep = visible_count(geometry.tubelets, geometry.patches, cfg.data.mask.ratio, cfg.data.mask.rounding)
    with torch.device("meta"):
        generator = model_of(
            cfg.model_copy(update={"model": cfg.model.model_copy(update={"checkpoint_activations": False})})
        )
        critic = build_critic(cfg.model.size, geometry) if cfg.critic.weight > 0 else None
        cubes_BNP = torch.empty(1, geometry.tokens, geometry.cube)
        index_BN = torch.zeros(1, geometry.tokens, dtype=torch.int64)
        target_BMP = torch.empty(1, geometry.tokens - keep, geometry.cube)
        alpha_BM = torch.empty(1, geometry.tokens - keep)
    inputs = cubes_BNP, index_BN[:, :keep], index_BN[:, keep:]

    def train_generator() -> None:
        guess_BMP = generator(*inputs)
        loss = reconstruction_loss(guess_BMP, target_BMP)
        if critic is not None:
            loss = loss + adversarial_loss(critic.requires_grad_(False)(guess_BMP))
        torch.autograd.backward(loss)

    def train_critic(scorer: nn.Module) -> None:
        loss = critic_loss(scorer(target_BMP), scorer(target_BMP))
        if cfg.critic.lipschitz == "gradient-penalty":
            loss = loss + gradient_penalty(scorer, target_BMP, target_BMP, alpha_BM)
        torch.autograd.backward(loss)

    clip = _count(train_generator)
    if critic is not None:
        scorer = critic
        update = _count(lambda: train_critic(scorer.requires_grad_(True)))
        clip += cfg.critic.steps * update
        if micro_batches > 1:
            clip += _count(torch.no_grad()(lambda: generator(*inputs)))
    return clip * cfg.train.global_batch


def peak_flops(device: torch.device, precision: str) -> float | None:
    """What a device can do in a second at most at `train.precision`; None where it is not known, as for CPUs."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    if re.search(r"\bMIG\b|\dg\.\d+gb|Laptop|Max-Q", name):  # a part of one, or a slower one
        return None
    for known, (half, single) in _PEAK_TFLOPS.items():
        if re.search(rf"\b{known}\b", name):
            return 1e12 * (single if precision == "fp32" else half)
    return None


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the operations of all matrix products.

    PyTorch's own counter also follows modules, and fails where a gradient is asked for by itself (gradient penalty).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def _count(work: Callable[[], Any]) -> int:
    with _Counter() as counter:
        work()
    return int(counter.total)
