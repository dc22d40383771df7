"""podman with its storage, networks and settings in one folder, of which nothing is left when it is closed."""

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.mounts import MOUNTINFO, filesystem_of

ROOT = Path(__file__).parents[2]
# runc, since crun refuses machines that mount both versions of cgroups.
# netavark opens ports with iptables.
_PROGRAMS = ("podman", "runc", "mmdebstrap", "netavark", "aardvark-dns", "catatonit", "iptables")
_OFF_PATH = "/usr/lib/podman:/usr/sbin"
# Not under pytest's folder: /tmp is often in memory, and the layers of images can lie on no overlay.
_DISK = Path("/var/tmp")
_NAMESPACES = "/run/netns"


@dataclass(frozen=True)
class Podman:
    """podman for tests.

    Args:
        folder: where all of it lies.
    """

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What podman, and programs that start it, find this folder by."""
        # Without systemd no timers: tests ask for the health of a container themselves.
        return os.environ | {
            "PATH": _path(),
            "TMPDIR": str(self.folder),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "DISABLE_HC_SYSTEMD": "true",
        }

    def __call__(self, *arguments: str | Path, timeout: float = 600.0) -> str:
        """One command; returns what it prints, fails with the end of what it says."""
        done = self.ask(*arguments, timeout=timeout)
        if done.returncode:
            raise RuntimeError(
                f"podman {' '.join(map(str, arguments))} ended with {done.returncode}:\n"
                f"{(done.stdout + done.stderr)[-4000:]}"
            )
        return done.stdout

    def ask(self, *arguments: str | Path, timeout: float = 600.0) -> "subprocess.CompletedProcess[str]":
        """One command, whatever it ends with."""
        command = ["podman", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=self.environment, timeout=timeout, check=False
        )

    @contextmanager
    def files(self, image: str) -> Iterator[Path]:
        """The folder with all the files of an image."""
        folder = self("image", "mount", image).strip()
        try:
            yield Path(folder)
        finally:
            self("image", "unmount", image)


def missing_programs() -> list[str]:
    """What must be installed before an image can be built and run."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]


@contextmanager
def run_podman() -> Iterator[Podman]:
    """podman in a folder of its own, which is gone at the end, with containers, images, networks and mounts.

    Raises:
        RuntimeError: images can't lie on this machine's disk, or something stayed behind.
    """
    if (kind := filesystem_of(_DISK.resolve(), MOUNTINFO.read_text())) in ("overlay", "tmpfs"):
        raise RuntimeError(
            f"{_DISK} is on {kind}, which can't hold the layers of images: mount a disk there (ext4, xfs)"
        )
    # Each step is tried, the last one first, whatever became of the others.
    with ExitStack() as steps:
        folder = Path(tempfile.mkdtemp(prefix="marlin-podman-", dir=_DISK))
        steps.callback(_remove, folder)
        if _NAMESPACES not in _mounts():
            steps.callback(subprocess.run, ["umount", "--quiet", _NAMESPACES], check=False)
        steps.callback(_unmount, folder)
        _write_settings(folder)
        podman = Podman(folder)
        steps.callback(podman, "network", "prune", "--force")
        steps.callback(podman, "volume", "prune", "--force")
        steps.callback(podman, "rm", "--all", "--force", "--time", "10")
        yield podman


def _unmount(folder: Path) -> None:
    """podman mounts its storage onto itself, and containers' files into it."""
    for mount in reversed(_mounts_below(folder)):
        if subprocess.run(["umount", mount], capture_output=True, check=False).returncode:
            subprocess.run(["umount", "--lazy", mount], check=True)


def _remove(folder: Path) -> None:
    if left := _mounts_below(folder):
        raise RuntimeError(f"podman left mounts behind, so that its folder stays: {', '.join(left)}")
    shutil.rmtree(folder)


def _write_settings(folder: Path) -> None:
    # Its own defaults are above what a container of a container may have.
    limits = [f"nofile={_limit(resource.RLIMIT_NOFILE)}", f"nproc={_limit(resource.RLIMIT_NPROC)}"]
    engine = {"cgroup_manager": "cgroupfs", "events_logger": "file", "lock_type": "file", "runtime": "runc"}
    engine["tmp_dir"] = f"{folder}/tmp"
    network = {"network_backend": "netavark", "network_config_dir": f"{folder}/networks"}
    storage = {"driver": "overlay", "graphroot": f"{folder}/storage", "runroot": f"{folder}/run"}
    containers = f"[containers]\ndefault_ulimits = {_toml(limits)}\n"
    (folder / "containers.conf").write_text(containers + _table("engine", engine) + _table("network", network))
    (folder / "storage.conf").write_text(_table("storage", storage))


def _limit(kind: int) -> str:
    hard = min(limit for limit in (resource.getrlimit(kind)[1], 32768) if limit != resource.RLIM_INFINITY)
    return f"{hard}:{hard}"


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:{_OFF_PATH}"


def _table(name: str, values: dict[str, str]) -> str:
    return "\n".join([f"[{name}]", *(f'{key} = "{value}"' for key, value in values.items())]) + "\n"


def _toml(values: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"


def _mounts_below(folder: Path) -> list[str]:
    return [mount for mount in _mounts() if folder in Path(mount).parents]


def _mounts() -> list[str]:
    return [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
