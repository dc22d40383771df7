"""docker/: what can be said of the Dockerfile and the compose file without building anything."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli import build_parser
from pipeline.config.load import load_config

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"


@pytest.fixture
def services() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


def test_hadolint_finds_nothing() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_frontend_has_to_be_downloaded() -> None:
    assert "# syntax=" not in (DOCKER / "Dockerfile").read_text()


def test_the_build_sees_only_what_it_installs() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"requirements", "setup.cfg", "pyproject.toml", "pipeline", "preprocess", "train", "eval"} <= allowed
    assert not {".git", ".venv", "tests"} & allowed


def test_compose_runs_the_demo(services: dict[str, Any]) -> None:
    args = build_parser().parse_args(services["demo"]["command"])
    cfg = load_config("demo", args.overrides)
    assert cfg.storage.root.startswith("s3://marlin/")
    assert cfg.tracking.uri == "http://mlflow:5000"
    assert args.output.startswith("/data/")


def test_compose_locks_our_containers_down(services: dict[str, Any]) -> None:
    for name in ("demo", "mlflow"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]


def test_compose_listens_on_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
