"""The cpu image, really built, and the demo in it: `make test-image`, as root, with buildah and mmdebstrap."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.image_builder import Buildah, build_image, missing_programs

pytestmark = [pytest.mark.image, pytest.mark.slow, pytest.mark.timeout(3600)]

# Mostly torch, DALI and Ray; a build of torch with CUDA would be several times that.
MOST_BYTES = 4_500_000_000


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Buildah:
    if missing := missing_programs():
        pytest.fail(f"no {', '.join(missing)} here: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        pytest.fail("buildah's chroot isolation needs root")
    return Buildah(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def image(buildah: Buildah) -> Iterator[str]:
    yield build_image(buildah, "cpu")
    buildah("rmi", "--all", "--force")


def test_the_command_answers(buildah: Buildah, image: str) -> None:
    with buildah.container(image) as container:
        assert "usage: marlin" in buildah.run(container, "marlin", "--help")
        assert buildah.run(container, "id", "-u").strip() == "10001"
        doctor = buildah.run(container, "marlin", "doctor")
    for package in ("python", "dali", "torch", "deepspeed", "ray", "mlflow", "insightface", "opencv"):
        assert f"ok       {package}" in doctor


def test_the_program_cannot_change_itself(buildah: Buildah, image: str) -> None:
    with buildah.container(image) as container:
        found = buildah.run(container, "find", "/opt/marlin", "-writable", "-not", "-type", "l")
    assert found == ""


def test_no_compiler_is_left(buildah: Buildah, image: str) -> None:
    with buildah.container(image) as container:
        found = buildah.run(container, "sh", "-c", "command -v gcc cc g++ c++ clang nvcc ld || true")
    assert found == ""


def test_it_is_small_for_what_it_holds(buildah: Buildah, image: str) -> None:
    assert buildah.size(image) < MOST_BYTES


def test_the_demo_runs(buildah: Buildah, image: str) -> None:
    with buildah.container(image) as container:
        said = buildah.run(container, "marlin", "demo", "--output", "/data/demo", timeout=1800)
        assert "/data/demo/report.html" in said
        report = Path(buildah("mount", container).strip()) / "data/demo/report.html"
        assert report.stat().st_size > 100_000
        buildah("umount", container)
