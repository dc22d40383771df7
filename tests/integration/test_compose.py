"""docker/compose.yaml, really brought up: S3, MLflow and the demo against both. Part of `make test-image`.

podman-compose reads the file, which needs no Docker daemon; that it is right for docker compose itself is checked by
`tests/test_docker_files.py`.
"""

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import yaml
from integration.image_builder import BASE, CERTIFICATES, write_pip_settings
from integration.podman import ROOT, Podman
from s3_server import free_port

pytestmark = [pytest.mark.image, pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(3600)]

FILE = ROOT / "docker/compose.yaml"
BESIDE_PYTHON = Path(sys.executable).parent


@dataclass(frozen=True)
class Compose:
    """The services of the file, on free ports of this machine."""

    podman: Podman
    s3_port: int
    mlflow_port: int

    def __call__(self, *arguments: str) -> str:
        variables = {
            "MARLIN_S3_PORT": str(self.s3_port),
            "MARLIN_MLFLOW_PORT": str(self.mlflow_port),
            "MARLIN_PIP_CONF": str(write_pip_settings(self.podman)),
            "MARLIN_CA": str(CERTIFICATES) if CERTIFICATES.exists() else "",
        }
        command = [BESIDE_PYTHON / "podman-compose", "-f", FILE, *arguments]
        environment = self.podman.environment | variables
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    def wait_until_healthy(self, service: str) -> None:
        """Ask for its health as the file says it, until it is well."""
        for _ in range(120):
            if self.podman.ask("healthcheck", "run", f"marlin_{service}_1").returncode == 0:
                return
            time.sleep(1)
        pytest.fail(f"{service} is not healthy:\n{self.podman.ask('logs', f'marlin_{service}_1').stderr[-3000:]}")


@pytest.fixture
def compose(podman: Podman, image: str, tmp_path: Path) -> Iterator[Compose]:
    podman("tag", image, "localhost/marlin:cpu")
    _build_s3_server(podman, tmp_path)
    started = Compose(podman, free_port(), free_port())
    yield started
    started("down", "--volumes")
    ours = "--filter=label=io.podman.compose.project=marlin"
    assert podman("ps", "--all", "--quiet", ours) == podman("volume", "ls", "--quiet", ours) == ""


def _build_s3_server(podman: Podman, folder: Path) -> None:
    """What the image of that name is: the program of that release, and busybox."""
    name = yaml.safe_load(FILE.read_text())["services"]["s3"]["image"]
    shutil.copy(BESIDE_PYTHON / "weed", folder / "weed")
    lines = [f"FROM {BASE}", "COPY weed /usr/bin/weed", "RUN ln -s busybox /usr/bin/wget", 'ENTRYPOINT ["weed"]']
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    podman("build", "--isolation=chroot", "--pull-never", "-t", f"localhost/{name}", folder)


def test_the_demo_runs_against_s3_and_mlflow(compose: Compose) -> None:
    compose("up", "--detach", "--no-build", "s3", "mlflow")
    for service in ("s3", "mlflow"):
        compose.wait_until_healthy(service)
    compose("up", "--detach", "--no-build", "--no-deps", "demo")
    ended = compose.podman("wait", "marlin_demo_1", timeout=3000).strip()
    assert ended == "0", compose.podman.ask("logs", "marlin_demo_1").stderr[-3000:]

    report = compose.podman.folder / "compose.html"
    compose.podman("cp", "marlin_demo_1:/data/demo/report.html", report)
    assert report.stat().st_size > 100_000
    assert _checkpoints(compose.s3_port)
    assert _finished_runs(compose.mlflow_port)


def _checkpoints(port: int) -> list[str]:
    """Manifests of checkpoints in the bucket."""
    keys = yaml.safe_load(FILE.read_text())["x-keys"]
    session = boto3.session.Session(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
    pages = session.client("s3", endpoint_url=f"http://127.0.0.1:{port}").get_paginator("list_objects_v2")
    names = [entry["Key"] for page in pages.paginate(Bucket="marlin") for entry in page.get("Contents", [])]
    return [name for name in names if "/checkpoints/" in name and name.endswith(".manifest.json")]


def _finished_runs(port: int) -> list[object]:
    """Runs that MLflow calls finished, through the published port."""
    address = f"http://127.0.0.1:{port}/api/2.0/mlflow"
    with urllib.request.urlopen(f"{address}/experiments/search?max_results=100", timeout=30) as answer:
        experiments = [entry["experiment_id"] for entry in json.load(answer)["experiments"]]
    asked = json.dumps({"experiment_ids": experiments, "filter": "attributes.status = 'FINISHED'"}).encode()
    request = urllib.request.Request(f"{address}/runs/search", asked, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return list(json.load(answer).get("runs", []))
