"""The image under test, built once for all that run it."""

import os
from collections.abc import Iterator

import pytest
from integration.image_builder import build_image, make_base
from integration.podman import Podman, missing_programs, run_podman


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """podman, with nothing in it but the base of the image."""
    if missing := missing_programs():
        pytest.fail(f"no {', '.join(missing)} here: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        pytest.fail("the base of the image is made by root")
    with run_podman() as started:
        make_base(started)
        yield started


@pytest.fixture(scope="session")
def image(podman: Podman) -> str:
    """The cpu image."""
    return build_image(podman, "cpu")
