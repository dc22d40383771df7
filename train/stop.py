"""Stopping on request: a signal sets a flag, the ranks agree on it between two updates."""

import os
import signal
from datetime import timedelta
from types import FrameType

import torch
from torch import distributed

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
EXIT_RESUMABLE = 75


class StopFlag:
    """Set by the first stop signal; a second one leaves at once. Signals that the process ignores stay ignored.

    Args:
        timeout: how long ranks wait for each other's answer; None takes PyTorch's default.
    """

    def __init__(self, timeout: timedelta | None = None) -> None:
        self._raised = False
        # Its own gloo group on the CPU: asking it never waits for the device.
        alone = distributed.get_world_size() == 1
        self._group = None if alone else distributed.new_group(backend="gloo", timeout=timeout)
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._on_signal) for number in heard}

    def __enter__(self) -> "StopFlag":
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether any rank was told to stop; every rank must ask."""
        if self._group is None:
            return self._raised
        flag = torch.tensor([int(self._raised)])
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX, group=self._group)
        return bool(flag.item())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._raised:
            os._exit(EXIT_RESUMABLE)
        self._raised = True
