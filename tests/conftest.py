"""Fixtures that rooms share: a real S3 server, stores on both backends, the pinned model files and sample videos."""

import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from s3_server import S3Server, run_s3_server

from pipeline.assets import pull_models, pull_samples
from pipeline.storage import Store, open_store

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: workers that share files among them shall not wait for one that began last."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """No handler that the command installed writes on into the closed stream of a test that is over."""
    yield
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if type(handler) is logging.StreamHandler]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def samples() -> dict[str, Path]:
    """The pinned sample videos; fetched if they are missing, and the test fails if they can't be."""
    return pull_samples(progress=False)


@pytest.fixture(scope="session")
def models() -> dict[str, Path]:
    """The pinned network files; fetched if they are missing, and the test fails if they can't be."""
    return pull_models(progress=False)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, started by the first test that needs it."""
    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh prefix on the server, and this test's environment pointing there with all rights."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store, on a local folder and on the S3 server."""
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    url: str = request.getfixturevalue("s3_url")
    return open_store(url)
