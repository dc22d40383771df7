"""What the report says of each run: its newest checkpoint, results, curves and provenance."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from eval.job import eval_config
from eval.loading import trained_config
from eval.report.charts import Series, line_chart
from eval.results import read_results
from eval.tasks.registry import TASKS
from pipeline.checkpoints import Checkpoint, list_checkpoints
from pipeline.config.load import dump_config
from pipeline.config.schema import Config
from pipeline.layout import run_store, tracking_uri
from pipeline.storage import Store, open_store
from pipeline.tracking import metric_history

CURVES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "Reconstruction error",
        "Mean squared error over hidden cubes; dashed: on held-out clips.",
        ("train/mse", "val/mse"),
    ),
    (
        "Critic loss",
        "What the critic minimises: score of reconstructions minus score of real cubes.",
        ("train/critic_loss",),
    ),
    (
        "Wasserstein estimate",
        "Score of real cubes minus score of reconstructions: how far the critic tells them apart.",
        ("train/wasserstein",),
    ),
    (
        "Adversarial loss",
        "Minus the critic's score of reconstructions, which the autoencoder is to raise.",
        ("train/generator_adv",),
    ),
    ("Learning rate", "Of the masked autoencoder: warm-up, then cosine.", ("train/lr",)),
    ("Throughput", "Training clips a second.", ("train/clips_per_s",)),
)
"""Title, caption and MLflow metrics of each chart."""


@dataclass(frozen=True)
class RunView:
    """One run as the page shows it.

    Attributes:
        name: what the page calls it.
        cfg: what the checkpoint was trained with, read and measured as the configuration given says; that alone where
            there is no checkpoint.
        store: its folder.
        checkpoint: the newest, None before the first is published.
        checkpoints: how many there are.
        results: all that were published of the checkpoint, by task.
        config_yaml: ``cfg`` as YAML.
        tracking: where its metrics lie.
    """

    name: str
    cfg: Config
    store: Store
    checkpoint: Checkpoint | None
    checkpoints: int
    results: Mapping[str, Mapping[str, Any]]
    config_yaml: str
    tracking: str

    @property
    def summary(self) -> list[tuple[str, str]]:
        """The choices that matter most, in words."""
        cfg = self.cfg
        mask, train, critic = cfg.data.mask, cfg.train, cfg.critic
        length = f"{train.steps} steps" if train.steps is not None else f"{train.epochs} epochs"
        adversary = f"weight {critic.weight:g}, Lipschitz {critic.lipschitz}" if critic.weight else "none"
        return [
            ("Model", f"ViT {cfg.model.size}, cubes of 2×{cfg.model.patch}×{cfg.model.patch}"),
            ("Clips", f"{cfg.data.frames} frames, {_every(cfg.data.stride)} of the video, {cfg.preprocess.size} px"),
            ("Masking", f"{mask.strategy}, {mask.ratio:.0%} hidden"),
            ("Critic", adversary),
            ("Training", f"{length} of {train.global_batch} clips, {train.precision}, seed {train.seed}"),
        ]


def view_runs(cfgs: Sequence[Config]) -> list[RunView]:
    """Read what some runs have published; those of one name are told apart by where they lie."""
    views = [_view_run(cfg) for cfg in cfgs]
    named = Counter(view.name for view in views)
    return [view if named[view.name] == 1 else replace(view, name=f"{view.name} ({_place(view)})") for view in views]


def _place(view: RunView) -> str:
    return open_store(view.cfg.storage.root).url


def _view_run(cfg: Config) -> RunView:
    store = run_store(cfg)
    checkpoints = list_checkpoints(store)
    newest = checkpoints[-1] if checkpoints else None
    if newest:
        cfg = eval_config(cfg, trained_config(store, newest))
    found = read_results(store, newest) if newest else {}
    results = {task: result for task, result in found.items() if task in TASKS}  # others have tasks of other versions
    return RunView(cfg.run.name, cfg, store, newest, len(checkpoints), results, dump_config(cfg), tracking_uri(cfg))


@dataclass(frozen=True)
class Chart:
    """A drawn chart; ``svg`` is None where there is nothing to draw, and ``absent`` then says why."""

    title: str
    caption: str
    svg: Markup | None
    absent: str = ""


def training_charts(views: Sequence[RunView]) -> list[Chart]:
    """The curves of all runs, one colour a run."""
    charts = []
    for title, caption, metrics in CURVES:
        series = [
            Series(f"{view.name} {metric}", history, colour=index % 6, dashed=metric.startswith("val/"))
            for index, view in enumerate(views)
            for metric in metrics
            if (history := metric_history(view.cfg, view.store, metric))
        ]
        if any(one.finite for one in series):
            charts.append(Chart(title, caption, line_chart(title, series)))
        else:
            charts.append(Chart(title, caption, None, "no finite value was recorded" if series else "not recorded"))
    return charts


def _every(stride: int) -> str:
    return {1: "consecutive ones", 2: "every second", 3: "every third"}.get(stride, f"every {stride}th")
