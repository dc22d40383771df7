"""Losses and gradients that are not finite: the update is left out, on every rank and for both networks.

What decides is the gradient after it was summed over the ranks, so all ranks decide alike. DeepSpeed looks at it in
every optimiser step from ZeRO stage 1 on, which costs its wait for the device in any case; stage 0 does the same here.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import MarlinError


class NotFinite(Exception):
    """An update that was left out. Raised on every rank.

    Args:
        network: whose gradient is not finite, "generator" or "critic".
        losses: losses of this rank, by metric.
    """

    def __init__(self, network: str, losses: Mapping[str, Tensor]) -> None:
        super().__init__(network)
        self.network = network
        self.losses = dict(losses)


class Undo:
    """A network's weights and optimiser state, to put back after a later part of the same update failed.

    Args:
        engine: engine at ZeRO stage 0 or 1; a sharded network would not be whole here.
    """

    def __init__(self, engine: Any) -> None:
        # ZeRO wraps the optimiser and gives it the 32-bit copies to update.
        self._optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
        both = [*engine.module.parameters(), *self._updated()]  # the same ones without ZeRO
        self._parameters = list({id(parameter): parameter for parameter in both}.values())
        self._weights = [parameter.detach().clone() for parameter in self._parameters]
        self._state = [
            {name: value.clone() for name, value in self._optimizer.state[parameter].items()}
            if parameter in self._optimizer.state
            else {}
            for parameter in self._updated()
        ]

    def __call__(self) -> None:
        """Put them back, in place: ZeRO keeps views into these tensors."""
        with torch.no_grad():
            for parameter, weight in zip(self._parameters, self._weights, strict=True):
                parameter.copy_(weight)
            for parameter, before in zip(self._updated(), self._state, strict=True):
                if not before:
                    self._optimizer.state.pop(parameter, None)
                for name, value in before.items():
                    self._optimizer.state[parameter][name].copy_(value)

    def _updated(self) -> list[Tensor]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]


class SkipCount:
    """Updates left out of the run, and in a row.

    Args:
        most: so many in a row end the run.
        total: those before this start.
    """

    def __init__(self, most: int, total: int = 0) -> None:
        self._most = most
        self._row = 0
        self.total = total

    def finite(self) -> None:
        """An update was done."""
        self._row = 0

    def skipped(self, step: int, cause: NotFinite, losses: Mapping[str, float], advice: str) -> str:
        """Count an update that was left out; returns what to tell the user.

        Args:
            step: the update, from 1.
            cause: why it was left out.
            losses: its losses over all ranks.
            advice: what may help, said where the run ends.

        Raises:
            MarlinError: it was one too many.
        """
        self._row += 1
        self.total += 1
        values = " and ".join(f"{name}={value:.4g}" for name, value in losses.items() if not math.isfinite(value))
        what = values or f"a gradient of the {cause.network} is not finite"
        if self._row >= self._most:
            raise MarlinError(
                f"step {step}: {what}, and {self._row} updates in a row were left out "
                f"(train.max_nonfinite={self._most}): {advice}"
            )
        return f"step {step} is left out: {what} ({self._row} in a row)"


def advice(precision: str) -> str:
    """What may help against losses that stay non-finite."""
    wider = {"fp16": "train.precision=bf16 or fp32, ", "bf16": "train.precision=fp32, "}.get(precision, "")
    return f"try {wider}a lower train.base_lr or a longer train.warmup, and look at the data of these steps"


def spread(loss: Tensor) -> Tensor:
    """The same loss, which makes every gradient NaN where it is not finite itself.

    A loss can be infinite over finite gradients. Nothing here waits for the device.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, math.nan)


def take_step(engine: Any, network: str, losses: Mapping[str, Tensor]) -> Tensor | None:
    """The engine's step: an update at the end of the accumulation, unless a gradient is not finite.

    Returns:
        Norm of the gradient over all ranks where there was an update, 0-dimensional; None in the midst of accumulation.

    Raises:
        NotFinite: the update was left out; weights and optimiser state are as before.
    """
    if not engine.is_gradient_accumulation_boundary():
        engine.step()
        return None
    if hasattr(engine.optimizer, "overflow"):
        _step_scaled(engine, network)
        finite, norm = engine.was_step_applied(), engine.get_global_grad_norm()
    else:  # stage 0: torch's own optimiser, which does not look
        gradients = [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = bool(norm.isfinite())
        if not finite:
            engine.zero_grad()  # the optimiser passes over parameters without a gradient, and so over all of them
        engine.step()
    if not finite:
        raise NotFinite(network, losses)
    return torch.as_tensor(norm, device=engine.device)


def _step_scaled(engine: Any, network: str) -> None:
    try:
        engine.step()
    except Exception as error:  # DeepSpeed raises a bare one
        if "loss scale already at minimum" not in str(error):
            raise
        raise MarlinError(
            f"the gradients of the {network} overflow fp16 whatever their losses are scaled by: {advice('fp16')}"
        ) from None
