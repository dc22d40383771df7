"""Builds docker/Dockerfile with buildah, on a base made from the Debian mirror: no image registry is asked."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PACKAGES = "ca-certificates,python3,python3-venv"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# What a machine sets so that its package clients work; the image under test must not need any of it elsewhere.
_CLIENT_VARIABLES = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_BASE = "localhost/marlin-test-base"


@dataclass(frozen=True)
class Buildah:
    """buildah with its storage in one folder."""

    folder: Path

    def __call__(self, *arguments: str | Path, timeout: float = 3000.0) -> str:
        """One command; returns what it prints, fails with the end of what it says."""
        store = ["--root", self.folder / "storage", "--runroot", self.folder / "run"]
        command = list(map(str, ["buildah", *store, *arguments]))
        done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, timeout=timeout)
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
            )
        return done.stdout

    def run(self, container: str, *command: str, timeout: float = 600.0) -> str:
        """A command in a container as its image's user."""
        return self("run", "--isolation", "chroot", container, "--", *command, timeout=timeout)

    @contextmanager
    def container(self, image: str) -> Iterator[str]:
        """A container of an image, removed at the end."""
        name = self("from", "--pull-never", image).strip()
        try:
            yield name
        finally:
            self("rm", name)

    def size(self, image: str) -> int:
        """Bytes of all the files of an image."""
        with self.container(image) as container:
            folder = self("mount", container).strip()
            done = subprocess.run(["du", "-sb", folder], capture_output=True, text=True, check=True)
            self("umount", container)
        return int(done.stdout.split()[0])


def missing_programs() -> list[str]:
    """What must be installed before an image can be built."""
    return [name for name in ("buildah", "mmdebstrap") if shutil.which(name) is None]


def build_image(buildah: Buildah, target: str) -> str:
    """Build one target; returns the name of the image."""
    _make_base(buildah)
    image = f"localhost/marlin-test:{target}"
    options = ["--isolation", "chroot", "--layers", "-f", "docker/Dockerfile", "--target", target]
    volumes = [f"--volume={path}:{path}:ro" for path in _local_indexes()]
    buildah("bud", *options, f"--build-arg=BASE_IMAGE={_BASE}", *volumes, "-t", image, ".")
    return image


def _make_base(buildah: Buildah) -> None:
    archive = buildah.folder / "base.tar"
    command = ["mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(archive)]
    subprocess.run(command, check=True, capture_output=True, timeout=1200)
    container = buildah("from", "scratch").strip()
    buildah("add", "-q", container, archive, "/")
    archive.unlink()
    if _CERTIFICATES.exists():
        buildah("copy", "-q", container, _CERTIFICATES, _CERTIFICATES)
    settings = buildah.folder / "pip.conf"
    settings.write_text(_pip_settings())
    buildah("copy", "-q", container, settings, "/etc/pip.conf")
    passed = {name: value for name, value in os.environ.items() if name.upper().startswith(_CLIENT_VARIABLES)}
    buildah("config", *(f"--env={name}={value}" for name, value in passed.items()), container)
    buildah("commit", "-q", "--rm", container, _BASE)


def _pip_settings() -> str:
    """This machine's pip configuration as one file."""
    lines = ["[global]"]
    for key, value in _pip_config():
        if key.startswith("global."):
            lines.append(f"{key.removeprefix('global.')} = {value}")
    return "\n".join(lines) + "\n"


def _pip_config() -> Sequence[tuple[str, str]]:
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = (line.partition("=") for line in lines)
    return [(key, " ".join(value.strip("'\"").replace("\\n", " ").split())) for key, _, value in pairs]


def _local_indexes() -> list[str]:
    """Folders of this machine that its pip installs from."""
    found = set()
    for key, value in _pip_config():
        if key.rpartition(".")[2] in ("find-links", "index-url", "extra-index-url"):
            for word in value.split():
                path = Path(word.removeprefix("file://"))
                if path.is_absolute() and path.is_dir():
                    # Simple indexes name their files in a sibling folder.
                    found.add(str(path.parent if path.name == "simple" else path))
    return sorted(found)
