"""`marlin train`: start the ranks of this machine and say how the run ended."""

import logging
import os
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.config.load import dump_config
from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError, StoppedEarly, UsageError
from pipeline.layout import dataset_store, run_store
from train.slurm import adopt_slurm
from train.status import State, Status, read_status, write_status

_SIGNALS = "SIGTERM,SIGINT,SIGUSR2"


@dataclass(frozen=True)
class Ending:
    """How the ranks ended, as the launcher saw it from outside."""

    reason: str
    stopped: bool = False
    killed: bool = False


def run_training(cfg: Config) -> Status:
    """Train, or continue, the run of a configuration; returns at once when it is already done.

    Raises:
        StoppedEarly: a stop signal came; the state is published and the next call continues.
        MarlinError: the training failed; the message is the failing rank's.
    """
    adopt_slurm(os.environ)
    if cfg.train.precision == "fp16":  # only then is it worth loading the engines before the ranks start
        from train.engine import refuse_unsupported

        refuse_unsupported(cfg.train.cell)
    run = run_store(cfg)
    before = read_status(run)
    if before is not None and _finished(cfg, before):
        return before
    step = 0 if before is None else before.step
    if os.environ.get("RANK", "0") == "0":
        write_status(run, Status("running", step))
    if "RANK" in os.environ or cfg.train.launcher == "none":
        from train.worker import train_here

        return _outcome(train_here(cfg))
    ended = _launch(cfg)
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


def _launch(cfg: Config) -> Ending | None:
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
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)}
    with tempfile.TemporaryDirectory(prefix="marlin-") as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(dump_config(cfg), "utf-8")
        # The local address spares the ranks a look-up of this machine's name, which not every network can answer.
        arguments = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={cfg.train.processes}"]
        arguments += [f"--signals-to-handle={_SIGNALS}", f"--shutdown-timeout={cfg.train.grace}"]
        arguments += [f"--log-dir={folder}/logs", "--module", "train.worker", str(path)]
        try:
            torchrun.run(torchrun.parse_args(arguments))  # type: ignore[no-untyped-call]
        except SignalException:
            # A second signal cuts torchrun's own wait short; the ranks may still be saving.
            psutil.wait_procs(psutil.Process().children(recursive=True), timeout=cfg.train.grace)
            return Ending("stopped by a signal before a rank could save", stopped=True)
        except ChildFailedError as error:
            return _diagnose({rank: failure.exitcode for rank, failure in error.failures.items()})
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return None


def _diagnose(exit_codes: Mapping[int, int]) -> Ending:
    """What is to be said of ranks that failed; a killed one is the cause of its peers' broken connections."""
    for rank, code in sorted(exit_codes.items()):
        if code < 0 and -code not in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            name = signal.Signals(-code).name
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return Ending(f"rank {rank} died of {name}{hint}; the next start continues the run", killed=True)
    rank, code = min(exit_codes.items())
    return Ending(f"rank {rank} ended with exit status {code} before it could say why; the next start continues")


def _outcome(status: Status) -> Status:
    if status.state == "running":
        raise MarlinError("the training ended without a word; the next start continues the run")
    if status.state == "resumable":
        raise StoppedEarly(f"stopped after step {status.step}, state published: the same command continues")
    if status.state == "failed":
        raise (UsageError if status.usage else MarlinError)(status.reason)
    return status
