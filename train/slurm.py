"""Ranks, or launchers of ranks, that `srun` starts: SLURM's variables told the way torchrun does."""

import re
from collections.abc import Mapping, MutableMapping

from pipeline.errors import UsageError
from train.meeting import Meeting

_FIRST_PORT, _PORTS = 20000, 10000  # below the range that Linux hands out


def adopt_slurm(environment: MutableMapping[str, str]) -> None:
    """Set what torchrun sets, where a step of several tasks is running and no launcher has set it already.

    Nothing is done in a batch script or a step of one task: there `marlin train` starts the ranks itself.

    Raises:
        UsageError: the step's tasks are not spread evenly over its nodes.
    """
    size = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if size == 1 or "RANK" in environment:
        return
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", "1"))
    per_node = environment.get("SLURM_STEP_TASKS_PER_NODE", str(size // nodes))
    if size % nodes or not re.fullmatch(rf"{size // nodes}(\(x{nodes}\))?", per_node):
        raise UsageError(f"srun started {per_node} tasks a node: start as many on each (--ntasks-per-node)")
    host = first_host(environment["SLURM_STEP_NODELIST"]) if nodes > 1 else "127.0.0.1"
    found = {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(size // nodes),
        "MASTER_ADDR": host,
        "MASTER_PORT": str(_port(environment)),
    }
    for name, value in found.items():
        environment.setdefault(name, value)


def launchers_meeting(environment: Mapping[str, str]) -> Meeting | None:
    """Of a step with one task a node, each a launcher; None where there is no step of several nodes.

    Raises:
        UsageError: the step has other than one task a node.
    """
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", "1"))
    if nodes == 1:
        return None
    if int(environment["SLURM_STEP_NUM_TASKS"]) != nodes:
        raise UsageError("launch.slurm.launcher=node needs one task a node: srun --ntasks-per-node=1")
    host = environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"])
    port = int(environment.get("MASTER_PORT") or _port(environment))
    return Meeting(nodes, int(environment["SLURM_NODEID"]), host, port)


def first_host(nodes: str) -> str:
    """The first name of a SLURM list of nodes: `a[03-05,9]-x,b` begins with `a03-x`."""
    found = re.match(r"([^\[,]*)(?:\[([^\]]*)\]([^,]*))?", nodes)
    if found is None or not found[0]:
        raise UsageError(f"SLURM_STEP_NODELIST='{nodes}' names no node")
    first = re.split(r"[-,]", found[2])[0] if found[2] else ""
    return f"{found[1]}{first}{found[3] or ''}"


def _port(environment: Mapping[str, str]) -> int:
    """The same for all ranks of a step, another one for the steps beside it."""
    job, step = environment.get("SLURM_JOB_ID", "0"), environment.get("SLURM_STEP_ID", "0")
    return _FIRST_PORT + (int(job) * 7 + int(step)) % _PORTS
