"""What code and which packages made a result."""

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import pipeline

_PACKAGES = (
    "torch",
    "deepspeed",
    "webdataset",
    "ray",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "mlflow",
    "numpy",
    "av",
    "onnxruntime",
    "opencv-python-headless",
    "insightface",
    "scikit-learn",
)


@cache
def code_version() -> str:
    """Version of this package, with the git revision when it runs from a checkout ("+dirty" when edited).

    An image has no checkout: it names the revision that it was built from in ``MARLIN_REVISION``.
    """
    folder = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+dirty", "--abbrev=12"]
    if not (folder / ".git").exists():
        built_from = os.environ.get("MARLIN_REVISION")
        return f"{pipeline.__version__} ({built_from})" if built_from else pipeline.__version__
    try:
        revision = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return pipeline.__version__
    return f"{pipeline.__version__} ({revision})"


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    found = []
    for name in _PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers; absent packages are left out."""
    return {"python": platform.python_version(), "marlin": code_version(), **dict(_installed())}
