"""A real MLflow server, and how long trackers wait for it at their end."""

import logging
import signal
from collections.abc import Iterator

import pytest
from mlflow_server import run_mlflow_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_mlflow_server(tmp_path_factory.mktemp("mlflow-server")) as url:
        yield url


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take long to make the tables of a database."""
    monkeypatch.setattr("pipeline.tracking.tracker._LAST_SECONDS", 60.0)


@pytest.fixture
def hurried(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking.tracker._LAST_SECONDS", 3.0)


@pytest.fixture
def restored() -> Iterator[None]:
    """The command sets up logging and signals of its process; here that is everyone's."""
    root, signals = logging.getLogger(), (signal.SIGTERM, signal.SIGUSR2)
    handlers, level, actions = root.handlers[:], root.level, [signal.getsignal(number) for number in signals]
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for number, action in zip(signals, actions, strict=True):
        signal.signal(number, action)
