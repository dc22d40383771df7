"""Joining the ranks of the run."""

import math
import os
import socket
from datetime import timedelta

import torch
from torch import distributed

from pipeline.errors import MarlinError
from pipeline.text import first_line
from train.preflight import exchange, meet, open_store
from train.world import World, choose_accelerator

_AFTER_WATCHDOG = 60


def join_world(timeout: int = 300, hang_timeout: int = 1800) -> World:
    """Join the process group that the launcher's environment describes; alone without one. A collective call.

    Args:
        timeout: seconds to wait here until all ranks have come and have heard of each other.
        hang_timeout: seconds that ranks may later wait for each other.

    Raises:
        MarlinError: not all ranks came, or they can't talk; the message names them and their machines.
    """
    rank = int(os.environ.setdefault("RANK", "0"))
    size = int(os.environ.setdefault("WORLD_SIZE", "1"))
    local_rank = int(os.environ.setdefault("LOCAL_RANK", "0"))
    # torchrun's name, then the deepspeed launcher's. Where neither says it, all ranks may be on one machine.
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or size)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    if "MASTER_PORT" not in os.environ:
        os.environ["MASTER_PORT"] = str(_free_port())
    choose_accelerator()
    import deepspeed

    gpu = torch.cuda.is_available()
    if not gpu:
        # The shared-memory operator would be compiled at the first start; gloo does without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    device = torch.device("cuda", local_rank) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)  # collective calls on objects go by it
    world = World(rank, size, local_rank, device, math.ceil(size / per_node))
    if not distributed.is_initialized():
        store = open_store(rank, timeout)
        hosts = meet(store, world, timeout)
        try:
            distributed.init_process_group(
                "nccl" if gpu else "gloo",
                store=store,
                rank=rank,
                world_size=size,
                timeout=collective_timeout(hang_timeout),
                device_id=device if gpu and size > 1 else None,
            )
        except RuntimeError as error:
            reason = first_line(error)
            raise MarlinError(f"rank {rank} on {hosts[rank]} can't connect to the others: {reason}") from error
        exchange(world, hosts, timeout)
    deepspeed.init_distributed(verbose=False)
    return world


def collective_timeout(hang_timeout: int) -> timedelta:
    """How long a collective call may wait: the watchdog speaks first, and says more than a broken call."""
    return timedelta(seconds=hang_timeout + _AFTER_WATCHDOG)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
