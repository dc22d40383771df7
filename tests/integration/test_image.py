"""The cpu image, really built and run as a cluster runs it: `make test-image`, as root, with podman and mmdebstrap."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.image_builder import BASE, PASSWORD, REVISION, build_image, client_options
from integration.podman import ROOT, Podman
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pipeline

pytestmark = [pytest.mark.image, pytest.mark.slow, pytest.mark.timeout(7200)]

# Mostly torch, DALI and Ray. A build of torch with CUDA brings CUDA's packages along.
MOST_BYTES = 4_500_000_000
MOST_BYTES_WITH_CUDA = 3 * MOST_BYTES
# What the security context of k8s/ and the services of docker/compose.yaml say.
LOCKED_DOWN = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"]
WRITABLE = ["--tmpfs=/tmp:mode=1777,exec", "--volume=cache:/cache", "--volume=data:/data"]
_PIP_LIST = ("list", "--format=json", "--disable-pip-version-check")
_ENVIRONMENT = "import json; from pip._vendor.packaging.markers import default_environment as e; print(json.dumps(e()))"
Run = Callable[..., str]


@pytest.fixture
def run(podman: Podman, image: str) -> Run:
    """The image's command with arguments, locked down; returns what it prints."""

    def run(*arguments: str, entrypoint: str = "marlin") -> str:
        return podman("run", "--rm", f"--entrypoint={entrypoint}", *LOCKED_DOWN, *WRITABLE, image, *arguments)

    return run


@pytest.fixture(scope="module")
def settings(podman: Podman, image: str) -> dict[str, Any]:
    """What the image says of itself."""
    (found,) = json.loads(podman("image", "inspect", image))
    return found


@pytest.fixture(scope="module")
def files(podman: Podman, image: str) -> Iterator[Path]:
    with podman.files(image) as folder:
        yield folder


@pytest.fixture(scope="module")
def has_cuda(podman: Podman, image: str) -> bool:
    """Whether the index serves a torch with CUDA."""
    code = "import torch; print(torch.version.cuda)"
    return podman("run", "--rm", "--entrypoint=python3", *LOCKED_DOWN, *WRITABLE, image, "-c", code).strip() != "None"


def test_without_arguments_it_says_what_it_can(podman: Podman, image: str) -> None:
    said = podman("run", "--rm", *LOCKED_DOWN, image)
    assert "usage: marlin" in said
    assert "the whole pipeline on sample videos" in said


def test_wrong_usage_ends_with_its_status(podman: Podman, image: str) -> None:
    assert podman.ask("run", "--rm", *LOCKED_DOWN, image, "no-such-verb").returncode == 2


def test_the_doctor_finds_everything_installed(run: Run) -> None:
    said = run("doctor")
    for package in ("python", "dali", "torch", "deepspeed", "ray", "mlflow", "insightface", "opencv"):
        assert f"ok       {package}" in said


def test_packages_are_those_of_the_lock(run: Run, has_cuda: bool) -> None:
    """CUDA's own packages beside them, which the lock leaves to the build of torch."""
    listed = json.loads(run(*_PIP_LIST, entrypoint="pip"))
    installed = {canonicalize_name(entry["name"]): _public(entry["version"]) for entry in listed}
    installed.pop("pip")  # the virtual environment's own
    locked = dict(_lock(run("-c", _ENVIRONMENT, entrypoint="python3")))
    expected = locked | {"marlin-pipeline": pipeline.__version__}
    assert {name: version for name, version in installed.items() if name in expected or not has_cuda} == expected


def test_the_templates_of_slurm_are_installed(run: Run) -> None:
    said = run("submit", "slurm", "--dry-run", "-c", "demo", "storage.root=/data/marlin", "corpus.path=/data/videos")
    assert "#SBATCH" in said


def test_results_name_the_revision(run: Run, settings: dict[str, Any]) -> None:
    code = "from pipeline.provenance import code_version; print(code_version())"
    assert run("-c", code, entrypoint="python3").strip() == f"{pipeline.__version__} ({REVISION})"
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in settings["Labels"].items()}
    assert labels["revision"] == REVISION
    assert labels["version"] == pipeline.__version__
    assert labels["base.name"] == BASE
    assert labels["licenses"] == "Apache-2.0"


def test_no_layer_knows_the_package_index(podman: Podman, image: str, settings: dict[str, Any], files: Path) -> None:
    told = json.dumps(settings) + podman("history", "--no-trunc", "--format=json", image)
    assert "PIP_" not in told
    assert PASSWORD not in told
    found = subprocess.run(["grep", "-rlF", PASSWORD, files], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, ""), "grep ends with 1 where it finds nothing"


def test_the_program_cannot_change_itself(podman: Podman, image: str) -> None:
    """Not even where the root is writable."""
    options = ["--rm", "--entrypoint=find"]
    found = podman("run", *options, image, "/opt", "/usr", "-xdev", "-writable", "-not", "-type", "l")
    assert found == ""


def test_no_compiler_is_left(files: Path) -> None:
    names = {
        path.name for folder in ("usr/bin", "usr/local/bin", "opt/marlin/bin") for path in (files / folder).iterdir()
    }
    assert not names & {"gcc", "cc", "g++", "c++", "clang", "nvcc", "ld", "make"}


def test_it_is_small_for_what_it_holds(files: Path, has_cuda: bool) -> None:
    done = subprocess.run(["du", "-sb", files], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[0]) < (MOST_BYTES_WITH_CUDA if has_cuda else MOST_BYTES)


def test_a_change_of_the_project_is_a_small_layer(podman: Podman, image: str) -> None:
    sizes = [layer["size"] for layer in json.loads(podman("history", "--format=json", image))]
    dependencies = max(sizes)
    assert dependencies > 1_000_000_000
    assert sum(sizes[: sizes.index(dependencies)]) < 20_000_000


@pytest.mark.parametrize(
    ("places", "healthy"),
    [
        (WRITABLE, True),
        (["--tmpfs=/tmp:mode=1777,exec", "--volume=data:/data"], False),
        (["--tmpfs=/tmp:mode=1777,exec,size=4k", *WRITABLE[1:]], False),
        (["--tmpfs=/tmp:mode=1777,exec", "--volume=cache:/cache", "--volume=/usr/share:/data"], False),
    ],
    ids=["all-writable", "read-only-cache", "full-tmp", "data-of-another-user"],
)
def test_health_is_that_every_place_takes_a_file(podman: Podman, image: str, places: list[str], healthy: bool) -> None:
    options = [*LOCKED_DOWN, *places, "--entrypoint=sleep"]
    container = podman("run", "--detach", "--rm", *options, image, "600").strip()
    try:
        podman.ask("exec", container, "sh", "-c", "head -c 100000 /dev/zero >/tmp/filled")
        assert (podman.ask("healthcheck", "run", container).returncode == 0) is healthy
        if healthy:
            assert podman("exec", container, "find", "/data", "/cache", "/tmp", "-name", ".health*") == ""
    finally:
        podman("kill", container)


def test_a_gpu_image_has_a_torch_with_cuda(podman: Podman, has_cuda: bool) -> None:
    """Where the index serves a build without CUDA, the build says so; it makes no image that can't use a GPU."""
    if has_cuda:
        build_image(podman, "gpu")
        return
    with pytest.raises(RuntimeError, match=r"has no CUDA: name an index that serves its CUDA 13 build"):
        build_image(podman, "gpu")


@pytest.mark.heavy
def test_the_demo_runs_and_goes_on_when_it_was_stopped(podman: Podman, image: str) -> None:
    """Stopped in preprocessing and in training, as a cluster does it: SIGTERM to the process with the number 1."""
    options = [*LOCKED_DOWN, *WRITABLE, "--shm-size=1g", "--env=OMP_NUM_THREADS=1", *client_options(podman)]
    container = podman("run", "--detach", *options, image, "demo", "--output", "/data/demo").strip()
    for moment in (_preprocesses, _trains):
        _wait_until(moment, podman, container)
        podman("stop", "--time", "300", container)
        assert podman("wait", container).strip() == "75", _said(podman, container)
        podman("start", container)
    assert podman("wait", container, timeout=3000).strip() == "0", _said(podman, container)
    report = podman.folder / "report.html"
    podman("cp", f"{container}:/data/demo/report.html", report)
    assert report.stat().st_size > 100_000
    assert REVISION in report.read_text("utf-8")
    podman("rm", container)


def _preprocesses(podman: Podman, container: str) -> bool:
    return "raylet" in podman("top", container, "args")


def _trains(podman: Podman, container: str) -> bool:
    return re.search(r"step ([5-9]|\d\d)/150 mse", _said(podman, container)) is not None


def _said(podman: Podman, container: str) -> str:
    done = podman.ask("logs", container)
    return done.stdout + done.stderr


def _wait_until(moment: Callable[[Podman, str], bool], podman: Podman, container: str, timeout: float = 1800.0) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        running = podman("inspect", "--format={{.State.Running}}", container).strip() == "true"
        assert running, f"it ended before it{moment.__name__.replace('_', ' ')}:\n{_said(podman, container)[-3000:]}"
        if moment(podman, container):
            return
        time.sleep(1)
    raise TimeoutError(f"not seen in {timeout:.0f} s: it{moment.__name__.replace('_', ' ')}")


def _lock(environment: str) -> Iterator[tuple[str, str]]:
    """Name and version of what the lock files name for an interpreter."""
    for file in ("cuda13.txt", "no-deps.txt"):
        for line in (ROOT / "requirements" / file).read_text().splitlines():
            if line and not line.startswith("#"):
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate(json.loads(environment)):
                    (pin,) = requirement.specifier
                    yield canonicalize_name(requirement.name), pin.version


def _public(version: str) -> str:
    """Without the build that the index chose, as in 2.13.0+cpu."""
    return version.partition("+")[0]
