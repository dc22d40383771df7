"""Builds docker/Dockerfile on a base made from the Debian mirror: no image registry is asked."""

import os
import subprocess
import sys
from pathlib import Path

from integration.podman import Podman
from package_index_server import run_index

BASE = "localhost/marlin-test-base"
# Of an index that the build asks, too; no layer may hold it.
PASSWORD = "made-up-password"
REVISION = "0123456789ab"
# busybox has the wget that the health check of the S3 server's image uses.
_PACKAGES = "busybox,ca-certificates,python3,python3-venv"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Where packages come from, of all that pip can be told.
_SOURCES = ("index-url", "extra-index-url", "find-links", "trusted-host", "cert", "proxy", "timeout", "default-timeout")
_FOLDERS = ("index-url", "extra-index-url", "find-links")


def make_base(podman: Podman) -> None:
    """The smallest Debian that has Python, as the image `BASE`."""
    archive = podman.folder / "base.tar"
    command = ["mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(archive)]
    subprocess.run(command, check=True, capture_output=True, timeout=1200)
    podman("import", archive, BASE)
    archive.unlink()


def build_image(podman: Podman, target: str) -> str:
    """Build one target on the base, with this machine's package index; returns the name of the image.

    Where the environment has a `TORCH_INDEX`, the build gets it.

    Raises:
        RuntimeError: the build fails; with the end of what it says.
    """
    image = f"localhost/marlin:{target}"
    options = ["--format=docker", "--isolation=chroot", "--layers", "--pull-never", "--file=docker/Dockerfile"]
    arguments = [f"--build-arg=BASE_IMAGE={BASE}", f"--build-arg=REVISION={REVISION}"]
    arguments += [f"--build-arg=TORCH_INDEX={index}" for index in _torch_indexes()]
    volumes = [f"--volume={path}:{path}:ro" for path in _local_indexes()]
    with run_index() as index:
        private = index.url.replace("//", f"//marlin:{PASSWORD}@")
        secrets = [f"--secret=id=pip,src={write_pip_settings(podman, private)}"]
        if CERTIFICATES.exists():
            secrets.append(f"--secret=id=ca,src={CERTIFICATES}")
        podman("build", *options, *arguments, *secrets, *volumes, f"--target={target}", "-t", image, ".", timeout=3000)
    return image


def write_pip_settings(podman: Podman, *more_indexes: str) -> Path:
    """This machine's package index, and more of them, as a pip.conf that any user may read."""
    settings = podman.folder / "pip.conf"
    sources = _sources()
    if more_indexes:
        sources["extra-index-url"] = " ".join([*sources.get("extra-index-url", "").split(), *more_indexes])
    lines = [f"{key} = {value}" for key, value in sources.items()]
    settings.write_text("\n".join(["[global]", *lines]) + "\n")
    return settings


def client_options(podman: Podman) -> list[str]:
    """Options of a run under which the container's programs reach this machine's package index."""
    options = [f"--volume={write_pip_settings(podman)}:/etc/pip.conf:ro"]
    if CERTIFICATES.exists():
        options += [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro", f"--env=PIP_CERT={CERTIFICATES}"]
    return options


def _sources() -> dict[str, str]:
    """Settings in the order in which pip lets later ones win."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[str, dict[str, str]] = {"global": {}, "user": {}, "site": {}, ":env:": {}}
    for line in lines:
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if key in _SOURCES and section in found:
            found[section][key] = " ".join(value.strip("'\"").replace("\\n", " ").split())
    return found["global"] | found["user"] | found["site"] | found[":env:"]


def _local_indexes() -> list[str]:
    """Folders of this machine that its pip installs from."""
    folders = set()
    words = [word for key in _FOLDERS for word in _sources().get(key, "").split()]
    for word in [*words, *_torch_indexes()]:
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.is_dir():
            # Simple indexes name their files in a sibling folder.
            folders.add(str(path.parent if path.name == "simple" else path))
    return sorted(folders)


def _torch_indexes() -> list[str]:
    """The one that the environment names, if it names one."""
    return [index] if (index := os.environ.get("TORCH_INDEX")) else []
