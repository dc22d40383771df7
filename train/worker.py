"""One training process: what the launcher starts on each rank (`python -m train.worker CONFIG`)."""

import ctypes
import logging
import os
import signal
import sys
from functools import partial

from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import run_store
from pipeline.log import setup_logging
from pipeline.storage import Unavailable
from train.status import Status, write_failure
from train.stop import EXIT_RESUMABLE
from train.world import LAUNCHER

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def train_here(cfg: Config) -> Status:
    """Train as one rank of the world in the environment; the status tells how it ended.

    Errors are written to the run's status before they are raised.
    """
    import torch

    from train.join import join_world
    from train.peers import error_or_loss
    from train.world import World, choose_accelerator

    choose_accelerator()
    from train.loop import Trainer

    if cfg.launch.threads is not None:
        torch.set_num_threads(cfg.launch.threads)
    trainer: Trainer | None = None
    world: World | None = None
    try:
        world = join_world(cfg.train.start_timeout, cfg.train.hang_timeout, partial(_report, cfg))
        if not world.leads and not os.environ.get("MARLIN_VERBOSE"):  # what all ranks do, the first one tells
            logging.getLogger("train").setLevel(logging.WARNING)
        with Trainer(cfg, world) as trainer:
            return trainer.train()
    except Exception as caught:
        run = run_store(cfg)
        error = error_or_loss(run, caught, world)
        try:
            write_failure(run, error, trainer.done if trainer else None)
        except Unavailable as unsaid:  # else nobody would hear of the first error
            _log.error("%s; the run's status can't be written either: %s", error, unsaid)
        if error is caught:
            raise
        raise error from caught


def _report(cfg: Config, reason: str) -> None:
    write_failure(run_store(cfg), MarlinError(reason))


def _die_with_launcher() -> None:
    """Let Linux end this process when its launcher is killed: an orphan would train on beside the run's next start."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid()):
        os._exit(1)  # it was killed before this line, while this process started


def main() -> int:
    """Exit status of this rank: 0 done, 75 stopped early, 1 or 2 as the error says."""
    # A cluster sends it to all processes of a job, and the launcher passes it on as SIGTERM: a second one cuts saving.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    setup_logging()
    if sys.platform == "linux":
        _die_with_launcher()
    try:
        status = train_here(load_config(sys.argv[1]))
    except MarlinError as error:
        return error.exit_status  # the parent tells the user, from the run's status
    except Exception:
        _log.exception("rank %s failed", os.environ.get("RANK", "0"))
        return 1
    return EXIT_RESUMABLE if status.state == "resumable" else 0


if __name__ == "__main__":
    sys.exit(main())
