"""`marlin train`: start the ranks of this machine and say how the run ended."""

import logging
import os
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.config.load import dump_config
from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError, StoppedEarly, UsageError
from pipeline.layout import dataset_store, run_store
from pipeline.storage import Store
from train.meeting import Meeting, named_meeting
from train.slurm import adopt_slurm, launchers_meeting
from train.status import State, Status, read_status, write_failure, write_status
from train.stop import EXIT_RESUMABLE
from train.world import LAUNCHER

_SIGNALS = "SIGTERM,SIGINT"
_ABORTS = {-signal.SIGABRT, -signal.SIGTERM, EXIT_RESUMABLE}
"""Exit codes of ranks that NCCL ended since those of another node are gone, and of ranks that ended with them."""


@dataclass(frozen=True)
class Ending:
    """How the ranks ended, as the launcher saw it from outside."""

    reason: str
    stopped: bool = False
    killed: bool = False
    aborted: bool = False


def run_training(cfg: Config) -> Status:
    """Train, or continue, the run of a configuration; returns at once when it is already done.

    Raises:
        StoppedEarly: a stop signal came; the state is published and the next call continues.
        MarlinError: the training failed; the message is the failing rank's.
    """
    meeting = named_meeting(os.environ)
    if meeting is None and cfg.launch.slurm.launcher == "node":
        meeting = launchers_meeting(os.environ)
    elif meeting is None:
        adopt_slurm(os.environ)
    if cfg.train.precision == "fp16":  # only then is it worth loading the engines before the ranks start
        from train.engine import refuse_unsupported

        refuse_unsupported(cfg.train.cell)
    run = run_store(cfg)
    before = read_status(run)
    if before is not None and _finished(cfg, before):
        return before
    step = 0 if before is None else before.step
    if os.environ.get("RANK", "0") == "0" and not (meeting and meeting.node):
        write_status(run, Status("running", step))
    if "RANK" in os.environ or cfg.train.launcher == "none":
        from train.worker import train_here

        return _outcome(train_here(cfg))
    ended = _launch(cfg, meeting)
    if ended is not None and ended.aborted and meeting is not None:
        ended = _with_peers(run, ended)
    if meeting is not None and meeting.node:
        if ended is not None and ended.killed:  # it could not say so itself, and the other nodes would wait for it
            write_failure(run, MarlinError(ended.reason))
        return _outcome(_followed(ended))
    status = read_status(run) or Status("running", step)
    if ended is not None and (status.state == "running" or (status.state == "failed" and ended.killed)):
        state: State = "resumable" if ended.stopped else "failed"
        status = Status(state, status.step, ended.reason)
        write_status(run, status)
    return _outcome(status)


def _finished(cfg: Config, status: Status) -> bool:
    if status.state != "done":
        return False
    if cfg.train.steps is not None:
        return status.step >= cfg.train.steps
    from train.data.loader import total_steps

    return status.step >= total_steps(cfg, load_dataset(dataset_store(cfg)))


def _with_peers(run: Store, ended: Ending) -> Ending | None:
    """How ranks ended that were aborted: NCCL does that where those of another node failed, are done, or are gone."""
    from train.peers import last_word

    state = last_word(run)
    if state == "unknown":
        return ended
    if state == "done":
        return None
    if state == "failed":
        return Ending(ended.reason)
    ended = Ending(f"no rank says why: another node may be gone ({ended.reason})", stopped=True)
    write_failure(run, StoppedEarly(ended.reason))
    return ended


def _followed(ended: Ending | None) -> Status:
    """How it went on another node than the first, whose launcher has the last word in the run's status."""
    if ended is None:
        return Status("done", 0)
    return Status("resumable" if ended.stopped else "failed", 0, ended.reason)


def _launch(cfg: Config, meeting: Meeting | None) -> Ending | None:
    """Run torchrun in this process; it passes signals on and waits for the ranks to save.

    Returns:
        How it ended where it did not end well; ranks that could still speak say it better in the run's status.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for name in ("api", "multiprocessing.api"):  # the failing rank speaks for itself, through the run's status
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    threads = cfg.launch.threads or max(1, (os.cpu_count() or 1) // cfg.train.processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ[LAUNCHER] = str(os.getpid())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)}
    signal.signal(signal.SIGUSR2, lambda number, frame: signal.raise_signal(signal.SIGTERM))  # all that ranks heed
    with tempfile.TemporaryDirectory(prefix="marlin-") as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(dump_config(cfg), "utf-8")
        arguments = [*_rendezvous(meeting, cfg.train.start_timeout), f"--nproc-per-node={cfg.train.processes}"]
        arguments += [f"--signals-to-handle={_SIGNALS}", f"--shutdown-timeout={cfg.train.grace}"]
        arguments += [f"--log-dir={folder}/logs", "--module", "train.worker", str(path)]
        try:
            torchrun.run(torchrun.parse_args(arguments))  # type: ignore[no-untyped-call]
        except SignalException:
            ranks = psutil.Process().children(recursive=True)
            for rank in ranks:  # one that torchrun was just starting, and does not know of
                if not _heeds(rank.pid, signal.SIGTERM):
                    with suppress(psutil.NoSuchProcess):
                        rank.terminate()
            # A second signal cuts torchrun's own wait short; the ranks may still be saving.
            psutil.wait_procs(ranks, timeout=cfg.train.grace)
            return Ending("stopped by a signal before a rank could save", stopped=True)
        except ChildFailedError as error:
            return _diagnose({rank: failure.exitcode for rank, failure in error.failures.items()})
        finally:
            del os.environ[LAUNCHER]
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return None


def _heeds(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal: a rank has, from when it has something to save."""
    try:
        caught = next(
            line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")
        )
    except (OSError, StopIteration):
        return True  # gone, or another system
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _rendezvous(meeting: Meeting | None, timeout: int) -> list[str]:
    if meeting is None:
        # The local address spares the ranks a look-up of this machine's name, which not every network can answer.
        return ["--standalone", "--local-addr=127.0.0.1"]
    place = [f"--nnodes={meeting.nodes}", f"--node-rank={meeting.node}", "--rdzv-backend=static"]
    place.append(f"--rdzv-conf=timeout={timeout}")
    return [*place, f"--master-addr={meeting.host}", f"--master-port={meeting.port}"]


def _diagnose(exit_codes: Mapping[int, int]) -> Ending:
    """What is to be said of ranks that failed; a killed one is the cause of its peers' broken connections.

    One that is aborted may have lost its own.
    """
    for rank, code in sorted(exit_codes.items()):
        if code < 0 and -code not in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            name = signal.Signals(-code).name
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            reason = f"rank {rank} died of {name}{hint}; the next start continues the run"
            return Ending(reason, killed=True, aborted=set(exit_codes.values()) <= _ABORTS)
    # Ranks of another node were told to stop, or are gone; torchrun ends the other ranks with the first.
    if EXIT_RESUMABLE in exit_codes.values() and set(exit_codes.values()) <= {EXIT_RESUMABLE, -signal.SIGTERM}:
        return Ending("stopped with the ranks of another node", stopped=True)
    rank, code = min(exit_codes.items())
    return Ending(f"rank {rank} ended with exit status {code} before it could say why; the next start continues")


def _outcome(status: Status) -> Status:
    if status.state == "running":
        raise MarlinError("the training ended without a word; the next start continues the run")
    if status.state == "resumable":
        raise StoppedEarly(f"{status.reason}: the same command continues")
    if status.state == "failed":
        raise (UsageError if status.usage else MarlinError)(status.reason)
    return status
