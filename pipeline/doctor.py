"""What this machine has, what is missing for what, and the fix."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from typing import Literal

from pipeline.assets import asset_status
from pipeline.config.schema import Config
from pipeline.errors import MarlinError

_CUDA13_DRIVER = 580


@dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    subject: str
    state: Literal["ok", "missing", "none"]  # "none" is fine: only some users need it
    detail: str

    def line(self) -> str:
        """As printed: the state, the subject and the detail."""
        return f"{self.state:<8} {self.subject:<12} {self.detail}"


def examine(cfg: Config | None = None) -> Iterator[Finding]:
    """Look at this machine, and at the storage of ``cfg`` when one is given."""
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    yield Finding(
        "python", _state(supported), platform.python_version() + ("" if supported else ": use 3.10, 3.11 or 3.12")
    )
    driver = _driver()
    yield _gpu(driver)
    yield _dali(driver)
    for name in ("torch", "deepspeed", "ray", "mlflow", "insightface"):
        yield _package(name)
    yield _opencv()
    for program, purpose in (("sbatch", "SLURM jobs"), ("kubectl", "Kubernetes workloads")):
        found = shutil.which(program)
        yield Finding(
            program, "ok" if found else "none", found or f"not on PATH; needed only to submit {purpose} from here"
        )
    for asset in asset_status():
        detail = asset.licence if asset.present else f"run `marlin {asset.kind}s pull`"
        yield Finding(asset.kind, _state(asset.present), f"{asset.name}: {detail}")
    if cfg is not None:
        yield _storage(cfg)


def _driver() -> int | None:
    """Major version of the NVIDIA driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        return int(out.split(".")[0])
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _gpu(driver: int | None) -> Finding:
    if driver is None:
        return Finding("gpu", "none", "no NVIDIA driver answers; training and decoding run on the CPU")
    import torch

    if not torch.cuda.is_available():
        return Finding("gpu", "missing", f"driver {driver}, but this torch has no CUDA: install its GPU build")
    return Finding("gpu", "ok", f"driver {driver}, {torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}")


def _dali(driver: int | None) -> Finding:
    extra = "cuda12" if driver is not None and driver < _CUDA13_DRIVER else "cuda13"
    for flavour in ("cuda13", "cuda12"):
        name = f"nvidia-dali-{flavour}0"
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if driver is not None and flavour != extra:
            return Finding("dali", "missing", f"{name} {version}, but this driver needs the extra {extra}")
        return Finding("dali", "ok", f"{name} {version}")
    return Finding(
        "dali",
        "missing",
        f"not installed: pip install 'marlin-pipeline[{extra}]'; where there is no DALI, set data.decoder=opencv",
    )


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "missing", "not installed: `make setup`")


def _opencv() -> Finding:
    try:
        metadata.version("opencv-python")
        return Finding("opencv", "missing", "opencv-python shadows the headless build: pip uninstall opencv-python")
    except metadata.PackageNotFoundError:
        found = util.find_spec("cv2") is not None
        return Finding("opencv", _state(found), "headless" if found else "not installed: `make setup`")


def _storage(cfg: Config) -> Finding:
    from pipeline.storage import open_store

    try:
        open_store(cfg.storage.root).check()
    except MarlinError as error:
        return Finding("storage", "missing", str(error))
    return Finding("storage", "ok", cfg.storage.root)


def _state(good: bool) -> Literal["ok", "missing"]:
    return "ok" if good else "missing"
