"""Evaluate each checkpoint as it is published; any number of such jobs, on any machines, share the work."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from eval.job import check_tasks, evaluate, track_results
from eval.results import lease_key, result_key
from eval.tasks.registry import task_groups
from pipeline.checkpoints import Checkpoint, DamagedCheckpoint, list_checkpoints
from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import run_store
from pipeline.leases import take
from pipeline.storage import ConditionalPutsIgnored, Store, Unavailable
from pipeline.tracking import usable_uri
from train.status import Status, read_status

_log = logging.getLogger(__name__)


def watch(cfg: Config, *, progress: bool = True, trains: Callable[[], bool] | None = None) -> int:
    """Evaluate what is published until the training has ended and nothing is left to do; the newest first.

    Args:
        cfg: the run; `eval.poll_seconds` and `eval.lease_seconds` say how often is looked, and when the work of a job
            that died passes on.
        progress: show bars.
        trains: asked before each look whether the job that trains is still there; None where nobody knows.

    Returns:
        How many checkpoints this job evaluated.

    Raises:
        MarlinError: the training failed or its job is gone, the data can't serve a task, or storage can't keep two jobs
            apart.
    """
    usable_uri(cfg)
    run = run_store(cfg)
    if not run.supports_conditional():
        raise ConditionalPutsIgnored(
            f"{run.url}: this S3 server ignores conditional puts, so two jobs could do the same work: evaluate "
            "without --watch, or use a server that honours If-None-Match and If-Match"
        )
    watcher = _Watcher(cfg, run, progress, trains)
    while True:
        try:
            ended = watcher.look()
        except Unavailable as error:
            _log.warning("%s; looking again in %g s", error, cfg.eval.poll_seconds)
            ended = None
        if ended is not None and ended.state == "done":
            return watcher.evaluated
        if ended is not None:
            raise MarlinError(f"{run.url}: the training failed, and all it published is evaluated: {ended.reason}")


class _Watcher:
    """What one job knows of a run that it watches."""

    def __init__(self, cfg: Config, run: Store, progress: bool, trains: Callable[[], bool] | None) -> None:
        self._cfg = cfg
        self._run = run
        self._progress = progress
        self._trains = trains
        self._checked = False
        self._spoiled: set[str] = set()
        self._ended: Status | None = None
        self.evaluated = 0

    def look(self) -> Status | None:
        """Evaluate one checkpoint, or wait; how the training ended, once nothing is left to do."""
        going = self._trains is not None and self._trains()  # before the status, which is the last one once it is gone
        status = read_status(self._run)  # before the listing: what is published after it, the next look sees
        left = [each for each in unevaluated(self._cfg, self._run) if each.name not in self._spoiled]
        if left and not self._checked:
            check_tasks(self._cfg)
            self._checked = True
        if any(self._evaluate(checkpoint) for checkpoint in left):
            return None  # one at a time: meanwhile a newer one may be there
        before, self._ended = self._ended, None
        if not left and not going and status is not None and status.state in ("done", "failed"):
            # Twice: a training that is started again says so some seconds after its job begins.
            if self._trains is not None or before == status:
                track_results(self._cfg, self._run, list_checkpoints(self._run))
                return status
            self._ended = status
        elif not left and not going and self._trains is not None:
            raise MarlinError(
                f"{self._run.url}: the job that trained is gone, all it published is evaluated and the training is "
                "not done: submit it again"
            )
        elif before is None:
            what = f"{len(left)} are with other jobs" if left else "none is left"
            _log.info("waiting for checkpoints of %s (%s; %s)", self._run.url, status.state if status else "new", what)
        time.sleep(self._cfg.eval.poll_seconds)
        return None

    def _evaluate(self, checkpoint: Checkpoint) -> bool:
        """Run the tasks that nobody else works on; whether there was one."""
        done = False
        for group in task_groups(self._cfg.eval.tasks):
            with _taken(self._cfg, self._run, checkpoint, group) as tasks:
                if not tasks:
                    continue
                try:
                    evaluate(self._cfg, self._run, checkpoint, tasks, progress=self._progress)
                except DamagedCheckpoint as error:
                    _log.warning("checkpoint %s can't be evaluated: %s", checkpoint.name, error)
                    self._spoiled.add(checkpoint.name)
                    return True
                done = True
        self.evaluated += done
        return done


def unevaluated(cfg: Config, run: Store) -> list[Checkpoint]:
    """The checkpoints that lack a result of `eval.tasks`, newest first."""
    published = list_checkpoints(run)
    there = {item.key for item in run.list("evals/")}
    return [each for each in reversed(published) if any(result_key(each, t) not in there for t in cfg.eval.tasks)]


@contextmanager
def _taken(cfg: Config, run: Store, checkpoint: Checkpoint, group: Sequence[str]) -> Iterator[list[str]]:
    """The tasks of a group without a result that this job may work on until the end of the block."""
    with ExitStack() as leases:
        tasks: list[str] = []
        for task in group:
            if run.exists(result_key(checkpoint, task)):
                continue
            lease = take(run, lease_key(checkpoint, task), cfg.eval.lease_seconds)
            if lease is None:
                continue
            leases.enter_context(lease)
            if not run.exists(result_key(checkpoint, task)):  # made between the look and the lease
                tasks.append(task)
        yield tasks
