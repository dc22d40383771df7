"""The training run: build, continue, train, close."""

import hashlib
import logging
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from pipeline.assets import cache_dir
from pipeline.checkpoints import list_checkpoints
from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.errors import MarlinError
from pipeline.layout import run_store
from pipeline.storage import ReadStore
from pipeline.storage.atomic import os_error
from train.collection import PeriodicCollection
from train.data.batch import Batch
from train.data.datasets import mix_members, open_data
from train.data.loader import fixed_batches, fixed_clips, open_loader, total_steps
from train.data.plan import accumulation
from train.engine import make_engine, over_ranks, require_compiler, set_learning_rate
from train.export import geometry_of, model_of
from train.flops import peak_flops, update_flops
from train.init import start_from
from train.join import collective_timeout
from train.masking import unparsed_frames
from train.metrics import MetricLog, StepRates
from train.model import build_critic
from train.nonfinite import NotFinite, SkipCount, advice
from train.pictures import reconstruction_picture
from train.publish import Publisher
from train.record import open_record, record_checkpoints, record_data
from train.resume import describe, resume
from train.retention import retention_of
from train.saving import save_state
from train.schedule import learning_rate
from train.status import Status, change_status, write_failure, write_status
from train.step import Masker, Stepper
from train.stop import StopFlag
from train.validate import validate
from train.watchdog import Watchdog
from train.world import World

_log = logging.getLogger(__name__)


class Trainer:
    """Everything with state of one training process. Use as a context manager.

    Args:
        cfg: the resolved configuration.
        world: this rank.
    """

    def __init__(self, cfg: Config, world: World) -> None:
        self.cfg = cfg
        self.world = world
        self.done = 0
        with ExitStack() as on_error:  # what was opened is closed again when a later line fails
            self._open(on_error)
            self._exit = on_error.pop_all()

    def _open(self, on_exit: ExitStack) -> None:
        cfg, world = self.cfg, self.world
        self.run = run_store(cfg)
        self.watchdog = on_exit.enter_context(Watchdog(world, cfg.train.hang_timeout, self._fail))
        self.dataset: Dataset | None = None
        self.data: ReadStore | None = None
        if cfg.data.source == "shards":
            self.dataset, self.data = open_data(cfg)
        self.micro_batches = accumulation(cfg, world.size)
        self.total = total_steps(cfg, self.dataset)
        self.stop = on_exit.enter_context(StopFlag(collective_timeout(cfg.train.hang_timeout)))
        before = list_checkpoints(self.run)
        fresh = not before
        self.engines, weights = _build_engines(cfg, self.micro_batches, cfg.model.init if fresh else "")
        self.masker = Masker(cfg, geometry_of(cfg), world.device)
        self.stepper = Stepper(cfg, self.engines["generator"], self.engines.get("critic"))
        scratch = _scratch(cfg, self.run.url, world)
        on_exit.callback(shutil.rmtree, scratch, ignore_errors=True)
        self.tracker = on_exit.enter_context(open_record(cfg, self.run, world, scratch / "mlflow"))
        self.publisher = Publisher(
            self.run,
            scratch,
            world,
            retention_of(cfg),
            cfg.train.hang_timeout / 2,
            committing=self.tracker.secure if self.tracker else None,
            committed=partial(record_checkpoints, self.tracker, self.run) if self.tracker else None,
        )
        on_exit.callback(self.publisher.close)
        self.info = describe(cfg, self.dataset.identity if self.dataset else "synthetic", world)
        self.mix = mix_members(self.dataset) if self.dataset else []
        if self.tracker is not None:
            record_data(self.tracker, self.dataset, self.mix)
            if weights:
                self.tracker.log_params({"model.init.sha256": weights})
        self.init = before[-1].info.get("init") if before else weights and {"url": cfg.model.init, "sha256": weights}
        self.watchdog.beat()
        self.done = resume(cfg, self.run, self.engines, world, mine=self.info, scratch=scratch.parent)
        if cfg.model.init and not fresh and not self.done:
            raise MarlinError(
                f"{self.run.url} has no whole checkpoint left: delete {self.run.url}/checkpoints to begin with "
                "model.init again"
            )
        self.saved = self.done
        self.skips = SkipCount(cfg.train.max_nonfinite, before[-1].info.get("skipped_steps", 0) if before else 0)
        flops, peak = update_flops(cfg, self.micro_batches), peak_flops(world.device, cfg.train.precision)
        self.rates = StepRates(cfg.train.global_batch, flops, peak, world.size, world.device)
        self.log = MetricLog(self.total, self.done, cfg.train.log_every, self.tracker)
        on_exit.callback(self.log.close)
        self.collection = on_exit.enter_context(PeriodicCollection())

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *error: Any) -> None:
        self._exit.__exit__(*error)

    def train(self) -> Status:
        """Train to the end, or to a stop signal; either way the state is published before this returns."""
        if self.world.leads:
            change_status(self.run, self._running)
        self.watchdog.beat(self.done)
        self.publisher.remove_leftovers()
        with open_loader(
            self.cfg,
            self.dataset,
            self.data,
            split="train",
            rank=self.world.rank,
            world=self.world.size,
            nodes=self.world.nodes,
            consumed=self.done * self.cfg.train.global_batch,
            device=self.world.device,
        ) as batches:
            while self.done < self.total and not self.stop.agreed():
                self._update(batches)
                self.watchdog.beat(self.done)
                if self._due(self.cfg.train.val_every) and self.cfg.train.val_clips:
                    self._validate()
                if self._due(self.cfg.train.checkpoint_every):
                    self._save()
                self.collection.step(self.done)
        if self.saved < self.done:
            self._save()
        self.publisher.wait()
        status = Status("done", self.done) if self.done >= self.total else _stopped(self.done)
        if self.tracker is not None and status.state == "resumable":
            self.tracker.will_continue()
        if self.world.leads:
            write_status(self.run, status)
        return status

    def _update(self, batches: Iterator[Batch]) -> None:
        """Algorithm 2 of the paper on one global batch."""
        rate = learning_rate(self.cfg.train, self.done, self.total)
        for engine in self.engines.values():
            set_learning_rate(engine, rate)
        waiting = time.perf_counter()
        micro_batches = list(islice(batches, self.micro_batches))
        waited = time.perf_counter() - waiting
        try:
            metrics = self.stepper([self.masker(batch) for batch in micro_batches])
            self.skips.finite()
        except NotFinite as cause:
            metrics = self._skip(cause)
        # A count of the whole global batch, while means are logged.
        unparsed = torch.stack([unparsed_frames(batch.regions_BTHW) for batch in micro_batches]).sum()
        metrics["train/unparsed_frames"] = unparsed * self.world.size
        self.done += 1
        most = {"train/data_wait_s": waited, "train/memory_gb": self.rates.memory()}
        values = {
            **over_ranks(metrics, most, self.world),
            "train/lr": rate,
            "train/samples": self.done * self.cfg.train.global_batch,
            **self.rates(self.log.step_time()),
            "train/skipped_steps": self.skips.total,
        }
        if self.cfg.train.precision == "fp16":
            values["train/loss_scale"] = self.engines["generator"].optimizer.cur_scale
        self.log.add(self.done, values)

    def _skip(self, cause: NotFinite) -> dict[str, torch.Tensor]:
        """Count an update that was left out; returns those of its losses that are finite."""
        losses = over_ranks(cause.losses, {}, self.world)
        values = {name: float(value) for name, value in losses.items()}
        _log.warning("%s", self.skips.skipped(self.done + 1, cause, values, advice(self.cfg.train.precision)))
        return {name: losses[name] for name, value in values.items() if math.isfinite(value)}

    def _due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self.total

    def _validate(self) -> None:
        if self.dataset is None or self.data is None or not self.dataset.of_split("val"):
            return
        cfg, world = self.cfg, self.world
        chosen: Any = {"split": "val", "limit": cfg.train.val_clips}
        total = fixed_batches(cfg, self.dataset, **chosen)
        with fixed_clips(
            cfg, self.dataset, self.data, rank=world.rank, world=world.size, device=world.device, **chosen
        ) as clips:
            found = validate(self.engines["generator"], self.masker, clips, total, world)
        if self.tracker is not None:
            picture = reconstruction_picture(
                found.masked, found.predicted_BMP, geometry_of(cfg), normalized=cfg.train.normalize_target
            )
            samples = self.done * cfg.train.global_batch
            self.tracker.log_metrics({"val/mse": found.mse, "val/samples": samples}, self.done)
            self.tracker.log_image("reconstruction", picture, self.done)
            _log.info("step %d/%d val mse %.4g", self.done, self.total, found.mse)
        self.log.step_time()
        self.watchdog.beat(self.done)

    def _save(self) -> None:
        info = self.info | {"samples": self.done * self.cfg.train.global_batch}
        if self.mix:
            info["mix"] = self.mix
        if self.init:
            info["init"] = self.init
        info["skipped_steps"] = self.skips.total
        if self.tracker is not None and (mlflow_run := self.tracker.run_id):
            info["mlflow_run_id"] = mlflow_run
        self.log.flush()  # what was measured up to here is told before the checkpoint is published
        save = partial(save_state, cfg=self.cfg, engines=self.engines, world=self.world)
        self.publisher.publish(self.done, save, info)
        self.saved = self.done
        self.log.step_time()
        self.watchdog.beat(self.done)

    def _running(self, before: Status | None) -> Status | None:
        """What the status becomes at the start, unless another rank has failed meanwhile."""
        return None if before and before.state == "failed" else Status("running", self.done)

    def _fail(self, reason: str) -> None:
        write_failure(self.run, MarlinError(reason), self.done or None)


def _stopped(done: int) -> Status:
    said = f"stopped after step {done}, state published" if done else "stopped before the first step"
    return Status("resumable", done, said)


def _build_engines(cfg: Config, micro_batches: int, init: str) -> tuple[dict[str, Any], str]:
    """Engines by name, and the sha256 of the weights that they start from, if any."""
    torch.manual_seed(cfg.train.seed)
    generator = model_of(cfg)
    weights = start_from(init, generator) if init else ""
    if cfg.model.compile:
        require_compiler()
        generator.compile(dynamic=False)
    critic = build_critic(cfg.model.size, geometry_of(cfg)) if cfg.critic.weight > 0 else None
    offload = cfg.train.offload_optimizer == "cpu"
    engines = {"generator": make_engine(generator, cfg.train, micro_batches, cfg.train.zero_stage, offload=offload)}
    if critic is not None:
        # The critic is small, and the gradient penalty needs its parameters whole: never sharded.
        engines["critic"] = make_engine(critic, cfg.train, micro_batches, min(cfg.train.zero_stage, 1))
    return engines, weights


def _scratch(cfg: Config, run_url: str, world: World) -> Path:
    """An empty folder for this rank of this run; what a killed process left there is removed."""
    base = Path(cfg.launch.scratch) if cfg.launch.scratch else cache_dir() / "scratch"
    folder = base / hashlib.sha256(run_url.encode()).hexdigest()[:16] / f"rank-{world.rank}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise os_error(folder, error) from None
    return folder
