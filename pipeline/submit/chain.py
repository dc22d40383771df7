"""The chain of a run's stages on SLURM: scripts and configuration written, jobs queued, all of it written down."""

import shlex
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from pipeline.config.load import dump_config
from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.layout import local_root, run_store
from pipeline.storage.atomic import os_error, whole_file
from pipeline.submit import slurm
from pipeline.submit.record import Job, Submission, new_name, write_submission
from pipeline.submit.render import Place, log_name, render
from pipeline.submit.schedulers import refuse_queued
from pipeline.submit.stages import STAGES, Stage, in_order
from pipeline.tracking import usable_uri


def submit_chain(cfg: Config, wanted: Collection[Stage] = STAGES) -> Submission:
    """Queue stages of a run, each after what it needs of the others.

    Raises:
        UsageError: the configuration can't become scripts, or its MLflow can't be used.
        MarlinError: one of the stages is queued already, the folder can't be written, or SLURM refuses a job; then
            none stays queued.
    """
    name = new_name()
    place = _place(cfg, name)
    scripts = render(cfg, place, in_order(wanted))
    refuse_queued(cfg, "slurm", wanted)
    if {"train", "eval"} & set(wanted):
        usable_uri(cfg)  # rather now than after hours of preprocessing
    _write(place.config, dump_config(cfg))
    for stage, text in scripts.items():
        _write(place.script(stage), text)
    numbers: dict[Stage, str] = {}
    try:
        jobs = [_submit(cfg, place, stage, numbers) for stage in scripts]
        submission = Submission(name, str(place.folder), jobs)
        write_submission(run_store(cfg), submission)
    except BaseException:
        if numbers:
            slurm.cancel(list(numbers.values()))
        raise
    return submission


def dry_run(cfg: Config, wanted: Collection[Stage] = STAGES) -> str:
    """The scripts that `submit_chain` would write, each below its command; nothing is written or queued.

    Raises:
        UsageError: the configuration can't become scripts.
    """
    place = _place(cfg, "dry-run")
    scripts = render(cfg, place, in_order(wanted))
    numbers: dict[Stage, str] = {stage: f"{stage.upper()}_JOB" for stage in scripts}
    parts = []
    for stage, text in scripts.items():
        command = slurm.sbatch_command(place.script(stage), *_after(cfg, stage, numbers))
        parts.append(f"# {shlex.join(command)}\n{text}")
    return "\n".join(parts)


def _submit(cfg: Config, place: Place, stage: Stage, numbers: dict[Stage, str]) -> Job:
    script = place.script(stage)
    arguments, after = _after(cfg, stage, numbers)
    numbers[stage] = slurm.submit(script, arguments, after)
    return Job(stage, numbers[stage], after, str(script), str(place.folder / log_name(cfg, stage, numbers[stage])))


def _after(cfg: Config, stage: Stage, numbers: Mapping[Stage, str]) -> tuple[list[str], list[str]]:
    """Arguments of a stage's script, and its dependencies among the jobs that go with it."""
    before = {name: numbers.get(name) for name in STAGES}
    if stage == "train" and before["preprocess"]:
        return [], [f"afterok:{before['preprocess']}"]
    if stage == "eval" and before["train"]:
        if cfg.launch.slurm.eval.when == "after":
            return [], [f"afterok:{before['train']}"]
        data = [f"afterok:{before['preprocess']}"] if before["preprocess"] else []
        return [before["train"]], [*data, f"after:{before['train']}"]
    if stage == "eval" and before["preprocess"]:
        return [], [f"afterok:{before['preprocess']}"]
    return [], []


def _place(cfg: Config, name: str) -> Place:
    asked, root = cfg.launch.slurm, local_root(cfg)
    if not asked.folder and root is None:
        raise UsageError(
            f"storage.root={cfg.storage.root} is no folder of the nodes: set launch.slurm.folder to a shared folder "
            "for scripts and logs"
        )
    base = Path(asked.folder).expanduser().absolute() if asked.folder or root is None else root / "slurm"
    folder = base / cfg.run.name / name
    outside = asked.container.kind == "none"
    programs = asked.bin or (str(Path(sys.executable).parent) if outside else "")
    return Place(folder, programs)


def _write(path: Path, text: str) -> None:
    try:
        with whole_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise os_error(path, error) from None
