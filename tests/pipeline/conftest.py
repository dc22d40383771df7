"""Fixtures of the storage tests: a real S3 server, and stores on both backends."""

from pathlib import Path

import pytest

from pipeline.storage import Store, open_store


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store, on a local folder and on the S3 server."""
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    url: str = request.getfixturevalue("s3_url")
    return open_store(url)
