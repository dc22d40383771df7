"""What this machine is busy with, into MLflow: processors, memory, disk, network and GPUs."""

import logging
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from pipeline.tracking.tracker import Tracker

_SAMPLES = 6
_PATIENCE_SECONDS = 5.0
_log = logging.getLogger(__name__)


class SystemMetrics:
    """Looks at the machine from a thread, by MLflow's own monitors. Use as a context manager.

    Args:
        tracker: where the values go, as `system/…`.
        seconds: between two points, each the mean of six looks. Their step is the time in whole seconds.
        node: comes into the names, where a run has several machines.
    """

    def __init__(self, tracker: Tracker, seconds: float, node: str = "") -> None:
        self._tracker = tracker
        self._seconds = seconds
        self._prefix = f"system/{node}/" if node else "system/"
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="system-metrics", daemon=True)

    def __enter__(self) -> "SystemMetrics":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join(_PATIENCE_SECONDS)

    def _work(self) -> None:
        try:
            monitors = _monitors()
            while self._look(monitors):
                values = {name: value for monitor in monitors for name, value in monitor.aggregate_metrics().items()}
                named = {self._prefix + name: value for name, value in values.items()}
                self._tracker.log_metrics(named, int(time.time()))
                for monitor in monitors:
                    monitor.clear_metrics()
        except Exception as error:  # a driver that fails is no reason to stop training
            _log.warning("this machine is watched no longer: %s", error)

    def _look(self, monitors: Sequence[Any]) -> bool:
        """Collect for one point; whether there is one, or the end came."""
        for _ in range(_SAMPLES):
            if self._closing.wait(self._seconds / _SAMPLES):
                return False
            for monitor in monitors:
                monitor.collect_metrics()
        return True


def _monitors() -> list[Any]:
    import psutil
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    psutil.cpu_percent()  # the first answer means nothing
    found = []
    for monitor in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
        try:
            found.append(monitor())
        except (ImportError, RuntimeError):  # no GPU, or no way to look at it
            continue
    return found
