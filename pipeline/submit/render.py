"""Batch scripts from a configuration: a pure function of both and the templates."""

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from pipeline.config.launch import EvalResources, ResourcesConfig
from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.submit.quoting import log_pattern, quote, refuse_unquoted, sbatch, shell
from pipeline.submit.stages import STAGES, Stage, ray_workers, refuse_networks_without_gpus

_LATE_S = 30  # SLURM looks about every half minute for jobs to signal


@dataclass(frozen=True)
class Place:
    """Where the jobs of a submission find their files.

    Attributes:
        folder: holds scripts, configuration and logs of the submission, the same on all machines.
        programs: folder of `marlin` and `ray`; empty where they are on the `PATH` anyway.
    """

    folder: Path
    programs: str

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.folder / "config.yaml"

    def script(self, stage: Stage) -> Path:
        """The batch script of a stage."""
        return self.folder / f"{stage}.sbatch"


def templates_folder(cfg: Config) -> Path:
    """The templates: the configured ones, those of the checkout, or those of the installation.

    Raises:
        UsageError: they are in none of these places.
    """
    own = cfg.launch.slurm.templates
    if own:
        places = [Path(own).expanduser()]
    else:
        checkout = Path(__file__).resolve().parents[2]
        places = [checkout / "slurm", Path(sysconfig.get_path("data")) / "share/marlin-pipeline/slurm"]
    for place in places:
        if (place / "train.sbatch.j2").is_file():
            return place
    raise UsageError(f"no SLURM templates in {' or '.join(map(str, places))}: set launch.slurm.templates")


def render(cfg: Config, place: Place, stages: Sequence[Stage] = STAGES) -> dict[Stage, str]:
    """The batch script of each stage.

    Args:
        cfg: the run.
        place: where its jobs find their files.
        stages: which are wanted.

    Raises:
        UsageError: times that leave no time to save, a container without an image, or a template with a fault.
    """
    _check(cfg, stages)
    environment = Environment(  # noqa: S701 (bash, not HTML: `refuse_unquoted` lets nothing in without its filter)
        loader=FileSystemLoader(templates_folder(cfg)),
        undefined=StrictUndefined,
        finalize=refuse_unquoted,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"quote": quote, "sbatch": sbatch, "shell": shell}
    try:
        return {
            stage: environment.get_template(f"{stage}.sbatch.j2").render(_values(cfg, place, stage)) for stage in stages
        }
    except TemplateError as error:
        raise UsageError(f"the template {getattr(error, 'name', None) or templates_folder(cfg)}: {error}") from None


def _values(cfg: Config, place: Place, stage: Stage) -> dict[str, Any]:
    """What templates may ask for; docs/slurm.md lists it for administrators."""
    slurm, asked = cfg.launch.slurm, resources(cfg, stage)
    ranks = (asked.gpus or cfg.train.processes) if stage == "train" else 1
    tasks = 1 if slurm.launcher == "node" else ranks
    return {
        "cfg": cfg,
        "slurm": slurm,
        "asked": asked,
        "stage": stage,
        "job_name": f"{cfg.run.name}-{stage}",
        "log": log_pattern(place.folder, log_name(cfg, stage)),
        "partition": asked.partition or slurm.partition,
        "constraint": asked.constraint or slurm.constraint,
        "ranks": ranks,
        "tasks": tasks,
        "cores": asked.cpus * (ranks // tasks),
        "gres": f"gpu:{slurm.gpu_type}:{asked.gpus}" if slurm.gpu_type else f"gpu:{asked.gpus}",
        "config": place.config,
        "programs": place.programs,
        "mounts": [str(place.folder), *slurm.container.mounts],
        "workers": ray_workers(cfg, slurm.preprocess.nodes * slurm.preprocess.cpus),
        "threads": cfg.launch.threads or asked.cpus,
    }


def resources(cfg: Config, stage: Stage) -> ResourcesConfig:
    """What a stage asks for."""
    asked: ResourcesConfig = getattr(cfg.launch.slurm, stage)
    return asked


def log_name(cfg: Config, stage: Stage, number: str = "") -> str:
    """File name of a stage's log: as SLURM takes it, or of a job with this number, as a glob for arrays."""
    asked = resources(cfg, stage)
    if isinstance(asked, EvalResources) and asked.jobs > 1:
        return f"{stage}-{number}_*.log" if number else f"{stage}-%A_%a.log"
    return f"{stage}-{number or '%j'}.log"


def _check(cfg: Config, stages: Sequence[Stage]) -> None:
    slurm = cfg.launch.slurm
    if slurm.container.kind != "none" and not slurm.container.image:
        raise UsageError(f"launch.slurm.container.kind={slurm.container.kind} needs launch.slurm.container.image")
    if "preprocess" in stages:
        refuse_networks_without_gpus(cfg, slurm.preprocess.gpus, "launch.slurm.preprocess.gpus")
    if slurm.slack <= cfg.train.grace + _LATE_S:
        raise UsageError(
            f"launch.slurm.slack={slurm.slack} leaves no time to save: it must be more than "
            f"train.grace={cfg.train.grace} and the {_LATE_S} s that SLURM may be late"
        )
    for stage in stages:
        minutes = resources(cfg, stage).minutes
        if 60 * minutes <= slurm.slack:
            raise UsageError(
                f"launch.slurm.{stage}.minutes={minutes} is no more than launch.slurm.slack={slurm.slack} seconds: "
                "raise the one or lower the other"
            )
