"""Several processes of this machine as ranks of one job."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from pipeline.errors import MarlinError, UsageError
from pipeline.storage import Unavailable


@dataclass(frozen=True)
class Rank:
    """This process among `size`."""

    number: int
    size: int
    device: torch.device

    def gather(self, mine: Any) -> list[Any]:
        """What each rank has, in their order, in every rank."""
        if self.size == 1:
            return [mine]
        everyone = [None] * self.size
        distributed.all_gather_object(everyone, mine)
        return everyone


Work = Callable[[Rank, Path], None]
"""What every rank does; the results of rank 0 go into the folder."""


def default_processes() -> int:
    """One a GPU, or one."""
    return max(1, torch.cuda.device_count())


def run_ranks(work: Work, processes: int, folder: Path) -> None:
    """Do some work in so many processes at once: in this one where it is one.

    Args:
        work: can be pickled where there are several.
        processes: how many.
        folder: for the results.

    Raises:
        UsageError: more processes than GPUs.
        MarlinError: a process failed; the others were ended.
    """
    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise UsageError(f"eval.finetune.processes={processes}, and this machine has {gpus} GPUs: start no more")
    if processes == 1:
        work(Rank(0, 1, _device(0)), folder)
        return
    with tempfile.TemporaryDirectory(prefix="marlin-ranks-") as meeting:
        arguments = (work, processes, folder, Path(meeting) / "store")
        ranks = start_processes(_rank, arguments, processes, join=False, daemon=True)  # type: ignore[no-untyped-call]
        try:
            while not ranks.join():
                pass
        except ProcessRaisedException as error:
            raise _failure(error, processes) from error
        except ProcessExitedException as error:
            raise MarlinError(f"rank {error.error_index} of {processes} was killed: {error}") from error
        finally:  # a stop signal ends this process, and would leave them behind
            for process in ranks.processes:
                process.kill()
                process.join()


def _failure(error: ProcessRaisedException, processes: int) -> MarlinError:
    """What a rank raised; who can wait for storage has to know that it is away."""
    last = str(error).strip().splitlines()[-1]
    kind = Unavailable if last.partition(":")[0].rpartition(".")[2] == Unavailable.__name__ else MarlinError
    return kind(f"rank {error.error_index} of {processes} failed: {last}")


def _rank(number: int, work: Work, size: int, folder: Path, store: Path) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    device = _device(number)
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(backend, init_method=store.as_uri(), rank=number, world_size=size)
    try:
        # Work that fails at once would cut the connections that others are still making, and theirs be the error told.
        distributed.barrier(device_ids=[number] if device.type == "cuda" else None)
        work(Rank(number, size, device), folder)
    finally:
        distributed.destroy_process_group()


def _device(number: int) -> torch.device:
    return torch.device("cuda", number) if torch.cuda.is_available() else torch.device("cpu")
