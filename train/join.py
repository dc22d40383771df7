"""Joining the ranks of the run."""

import math
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import torch
from torch import distributed

from pipeline.errors import MarlinError, UsageError
from pipeline.text import first_line
from train.preflight import exchange, meet, open_store
from train.watchdog import Watchdog
from train.world import World, choose_accelerator

_AFTER_WATCHDOG = 60
_AFTER_EXCHANGE = 30


def join_world(
    timeout: int = 300, hang_timeout: int = 1800, report: Callable[[str], None] = lambda reason: None
) -> World:
    """Join the process group that the launcher's environment describes; alone without one. A collective call.

    Args:
        timeout: seconds to wait here until all ranks have come and have heard of each other.
        hang_timeout: seconds that ranks may later wait for each other.
        report: told the reason before this process ends because the backend never came back from connecting.

    Raises:
        UsageError: there is no GPU for this rank.
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
    device = _device(local_rank)
    if gpu:
        torch.cuda.set_device(device)  # collective calls on objects go by it
    world = World(rank, size, local_rank, device, math.ceil(size / per_node))
    if distributed.is_initialized():  # an earlier run of this process
        return world
    store = open_store(rank, timeout)
    world = replace(world, store=store)
    hosts = meet(store, world, timeout)
    patience = 2 * timeout + _AFTER_EXCHANGE  # what the exchange may take before it speaks for itself
    with Watchdog(world, patience, report, "the ranks did not connect within {} s (from train.start_timeout)"):
        _connect(world, hosts[rank], hang_timeout)
        exchange(world, hosts, timeout)
    deepspeed.init_distributed(verbose=False)
    return world


def _connect(world: World, host: str, hang_timeout: int) -> None:
    gpu = world.device.type == "cuda"
    try:
        distributed.init_process_group(
            "nccl" if gpu else "gloo",
            store=world.store,
            rank=world.rank,
            world_size=world.size,
            timeout=collective_timeout(hang_timeout),
            device_id=world.device if gpu and world.size > 1 else None,
        )
    except RuntimeError as error:
        raise MarlinError(f"rank {world.rank} on {host} can't connect to the others: {first_line(error)}") from error


def _device(local_rank: int) -> torch.device:
    """This rank's GPU, the CPU without any. Where a launcher shows each rank its own GPU only, that is number 0."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    visible = torch.cuda.device_count()
    if local_rank >= visible > 1:
        raise UsageError(
            f"rank {local_rank} of {socket.gethostname()} has no GPU, {visible} are visible: start no more ranks there"
        )
    return torch.device("cuda", local_rank if visible > 1 else 0)


def collective_timeout(hang_timeout: int) -> timedelta:
    """How long a collective call may wait: the watchdog speaks first, and says more than a broken call."""
    return timedelta(seconds=hang_timeout + _AFTER_WATCHDOG)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
