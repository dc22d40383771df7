"""Prints a benchmark's figures and writes them, with the machine they were measured on, into a dated file."""

import datetime
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.provenance import code_version, versions
from pipeline.storage.manifest import to_json


def machine() -> dict[str, Any]:
    """What the figures depend on, as far as Python can tell."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    cpu = names[0] if names else platform.machine()
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version()}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def publish(name: str, command: str, figures: Mapping[str, Any], out: Path | None) -> None:
    """Prints the figures; with `out` also writes <out>/<name>-<date>.json."""
    width = max(map(len, figures))
    for key, value in figures.items():
        print(f"{key:<{width}}  {value}")
    if out is None:
        return
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    content = {
        "benchmark": name,
        "date": today,
        "command": command,
        "machine": machine(),
        "code": code_version(),
        "versions": versions(),
        "figures": dict(figures),
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}-{today}.json"
    path.write_bytes(to_json(content))
    print(f"written: {path}")
