"""Asking at the start whether all ranks are there and hear each other, so that an error can name who does not."""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

import torch
from torch import distributed
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from pipeline.errors import MarlinError
from pipeline.text import first_line
from train.world import World


def open_store(rank: int, timeout: int) -> Store:
    """The key-value store at MASTER_ADDR:MASTER_PORT: torchrun's, or one that rank 0 opens.

    Raises:
        MarlinError: nothing answers there.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    leads = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        store = TCPStore(
            host, port, is_master=leads, wait_for_workers=False, timeout=timedelta(seconds=timeout), multi_tenant=True
        )
    except RuntimeError as error:
        raise MarlinError(
            f"rank {rank} on {socket.gethostname()} did not reach rank 0 at {host}:{port} "
            f"within {timeout} s (train.start_timeout): {first_line(error)}"
        ) from error
    # Ranks that torchrun starts again find nothing of those before.
    return PrefixStore(f"marlin/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def meet(store: Store, world: World, timeout: int) -> dict[int, str]:
    """Wait for every rank to say where it is; returns the machines' names by rank.

    Raises:
        MarlinError: some did not come.
    """
    deadline = time.monotonic() + timeout
    hosts: dict[int, str] = {}
    while True:
        try:
            store.set(f"host/{world.rank}", socket.gethostname())
            for rank in range(world.size):
                if rank not in hosts and store.check([f"host/{rank}"]):
                    hosts[rank] = store.get(f"host/{rank}").decode()
        except RuntimeError as error:
            raise MarlinError(
                f"rank {world.rank} on {socket.gethostname()} lost rank 0 while the ranks met: look at its log"
            ) from error
        if len(hosts) == world.size:
            return hosts
        if time.monotonic() > deadline:
            missing = [rank for rank in range(world.size) if rank not in hosts]
            raise MarlinError(
                f"{ranks_text(missing)} of {world.size} did not start within {timeout} s (train.start_timeout), "
                f"while {places(hosts)} did: look at the logs and machines of the missing"
            )
        time.sleep(0.05)


def exchange(world: World, hosts: Mapping[int, str], timeout: int) -> None:
    """Send a word round the ring of ranks, then sum one over all, by the backend that trains.

    Raises:
        MarlinError: a neighbour was not heard, or the sum did not come.
    """
    if world.size == 1:
        return
    before, after = (world.rank - 1) % world.size, (world.rank + 1) % world.size
    word = torch.tensor([world.rank], device=world.device)
    heard = torch.full_like(word, -1)
    sent = distributed.P2POp(distributed.isend, word, after), distributed.P2POp(distributed.irecv, heard, before)
    link = f"{place(before, hosts)} to {place(world.rank, hosts)}"
    try:
        for work in distributed.batch_isend_irecv(list(sent)):
            work.wait(timedelta(seconds=timeout))
        if int(heard) != before:
            raise MarlinError(f"the link from {link} brought {int(heard)} instead of {before}")
        link = f"{place(0, hosts)} to all others"
        total = word.clone()
        distributed.all_reduce(total, async_op=True).wait(timedelta(seconds=timeout))
    except RuntimeError as error:
        raise MarlinError(
            f"no answer over the link from {link} within {timeout} s (train.start_timeout), all ranks having started: "
            f"look at the network between these machines, and at NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME "
            f"({first_line(error)})"
        ) from error
    if int(total) != world.size * (world.size - 1) // 2:
        raise MarlinError(f"the sum over all ranks came out as {int(total)}: the network or a device computes wrongly")


def place(rank: int, hosts: Mapping[int, str]) -> str:
    """A rank and its machine, in words."""
    return f"rank {rank} ({hosts.get(rank, 'unknown machine')})"


def places(hosts: Mapping[int, str]) -> str:
    """Ranks and their machines, in words."""
    by_host: dict[str, list[int]] = {}
    for rank, host in sorted(hosts.items()):
        by_host.setdefault(host, []).append(rank)
    return ", ".join(f"{ranks_text(ranks)} on {host}" for host, ranks in by_host.items())


def ranks_text(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 1, 2`; the first of many."""
    shown = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return f"rank{'s' * (len(ranks) > 1)} {shown}"
