"""Plain processes as ranks, told by the environment what a launcher would tell them."""

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from training import REPOSITORY, environment


def free_port() -> str:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start_ranks(arguments: Sequence[str], each: Sequence[Mapping[str, str]]) -> "list[subprocess.Popen[str]]":
    """Start Python with the arguments, once for each environment."""
    path = f"{REPOSITORY}:{Path(__file__).resolve().parent}"
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(**{**extra, "PYTHONPATH": path}),
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for extra in each
    ]


def finish(processes: "Sequence[subprocess.Popen[str]]", timeout: float = 240) -> list[tuple[int, str]]:
    """Exit status and standard error of each; none is left behind."""
    try:
        return [(rank.returncode, err) for rank in processes for _, err in [rank.communicate(timeout=timeout)]]
    finally:
        for rank in processes:
            rank.kill()
            rank.wait()


def places(size: int) -> list[dict[str, str]]:
    """What torchrun tells the ranks of one machine."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(size)}
    return [
        {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)} for rank in range(size)
    ]
