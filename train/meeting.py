"""Launchers of several nodes that train together: where they meet, and which of them speaks."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import UsageError

_PORT = 29500  # torchrun's


@dataclass(frozen=True)
class Meeting:
    """Where the launchers of several nodes meet, and which of them this one is."""

    nodes: int
    node: int
    host: str
    port: int


def named_meeting(environment: Mapping[str, str]) -> Meeting | None:
    """As the variables say that torchrun itself takes (`PET_NNODES` and so on), None where they name one node or none.

    Raises:
        UsageError: one is missing, or is no number.
    """
    try:
        nodes = int(environment.get("PET_NNODES", "1"))
        if nodes == 1:
            return None
        node, port = int(environment["PET_NODE_RANK"]), int(environment.get("PET_MASTER_PORT", _PORT))
        return Meeting(nodes, node, environment["PET_MASTER_ADDR"], port)
    except KeyError as missing:
        raise UsageError(f"PET_NNODES is set, but {missing.args[0]} is not: set it on each node") from None
    except ValueError as error:
        raise UsageError(f"PET_NNODES, PET_NODE_RANK and PET_MASTER_PORT must be numbers: {error}") from None


def speaks(environment: Mapping[str, str]) -> bool:
    """Whether this is the first of the commands that train together, which alone tells how it went."""
    names = ("RANK", "SLURM_PROCID", "PET_NODE_RANK")
    return next((environment[name] for name in names if name in environment), "0") == "0"
