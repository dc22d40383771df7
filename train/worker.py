"""One training process: what the launcher starts on each rank (`python -m train.worker CONFIG`)."""

import logging
import os
import sys

from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import run_store
from pipeline.log import setup_logging
from train.status import Status, write_status
from train.stop import EXIT_RESUMABLE

_log = logging.getLogger(__name__)


def train_here(cfg: Config) -> Status:
    """Train as one rank of the world in the environment; the status tells how it ended.

    Errors are written to the run's status before they are raised.
    """
    import torch

    from train.engine import choose_accelerator, join_world

    choose_accelerator()
    from train.loop import Trainer

    if cfg.launch.threads is not None:
        torch.set_num_threads(cfg.launch.threads)
    step = 0
    try:
        with Trainer(cfg, join_world()) as trainer:
            step = trainer.done
            return trainer.train()
    except Exception as error:
        reason = str(error) if isinstance(error, MarlinError) else f"{type(error).__name__}: {_first_line(error)}"
        write_status(run_store(cfg), Status("failed", step, reason, usage=isinstance(error, UsageError)))
        raise


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no message")


def main() -> int:
    """Exit status of this rank: 0 done, 75 stopped early, 1 or 2 as the error says."""
    setup_logging()
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
