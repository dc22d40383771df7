"""Stopping on request: a signal sets a flag, the ranks agree on it between two updates."""

import os
import signal
from types import FrameType

import torch
from torch import distributed

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
EXIT_RESUMABLE = 75


class StopFlag:
    """Set by the first stop signal; a second one leaves at once."""

    def __init__(self) -> None:
        self._raised = False
        # Its own gloo group on the CPU: asking it never waits for the device.
        self._group = distributed.new_group(backend="gloo") if distributed.get_world_size() > 1 else None
        self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

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
