"""`marlin sweep`: every run of a sweep, then what they found beside each other."""

import hashlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import dataset_store
from pipeline.storage import AlreadyExists, Store, open_store
from pipeline.storage.manifest import parse_json, to_json
from pipeline.storage.single import create_alone
from pipeline.sweep.plan import Member, SweepConfig, members_of
from pipeline.sweep.run import Ended, run_members
from pipeline.text import plural

_log = logging.getLogger(__name__)


def run_sweep(sweep: SweepConfig, out: Path, *, progress: bool = True) -> Path:
    """Run what is not done of a sweep and write its report; a call after a failure tries what failed again.

    Args:
        sweep: what to run.
        out: folder for configurations, logs and the report.
        progress: show bars.

    Returns:
        The report.

    Raises:
        UsageError: a configuration is wrong, or the sweep was begun with another one.
        StoppedEarly: a stop signal came; the same call continues.
        MarlinError: runs failed; the report has the others.
    """
    from eval.report.page import write_report
    from eval.sweep import is_done, sweep_tables
    from preprocess.stage import run_preprocess

    members = members_of(sweep)
    base = members[0].cfg
    place = open_store(base.storage.root).at(f"sweeps/{sweep.name}")
    _bind(place, members)
    for cfg in {dataset_store(member.cfg).url: member.cfg for member in members}.values():
        run_preprocess(cfg, progress)
    parent = _parent(base, place, sweep.name)
    todo = [_below(member, parent) for member in members if not is_done(member.cfg)]
    _log.info("sweep %s: %s, %d to do", sweep.name, plural(len(members), "run"), len(todo))
    failed = [ended for ended in run_members(todo, out, sweep.workers, progress=progress) if ended.status]
    report = write_report(
        [member.cfg for member in members], out / "report.html", progress, sweep=sweep_tables(members)
    )
    if failed:
        raise MarlinError(_failures(failed, len(members), out, report))
    return report


def _bind(place: Store, members: Sequence[Member]) -> None:
    """A sweep is bound to the configurations that it began to train; runs may be added."""
    mine = {member.cfg.run.name: _trained(member.cfg) for member in members}
    try:
        create_alone(place, "sweep.json", to_json({"schema": 1, "runs": mine}))
        return
    except AlreadyExists:
        before = parse_json(place.read("sweep.json"), f"{place.url}/sweep.json")["runs"]
    other = sorted(name for name in mine.keys() & before.keys() if mine[name] != before[name])
    if other:
        raise UsageError(
            f"{place.url} began with another configuration of {other[0]}: give the sweep another name, or delete it"
        )
    place.write("sweep.json", to_json({"schema": 1, "runs": before | mine}))


def _trained(cfg: Config) -> str:
    """Hash of what a run's training depends on."""
    settings = cfg.model_dump(mode="json", exclude={"storage", "eval", "tracking", "launch"})
    return hashlib.sha256(to_json(settings)).hexdigest()


def _parent(base: Config, place: Store, name: str) -> str:
    """The MLflow run that the members are shown below; empty while MLflow is out of reach."""
    from pipeline.tracking.client import NO_TRACKING, connect
    from pipeline.tracking.runs import find_or_start

    if base.tracking.uri == NO_TRACKING:
        return ""
    cfg = base.model_copy(update={"run": base.run.model_copy(update={"name": name})})
    try:
        return str(find_or_start(connect(cfg), cfg, place, secrets.token_hex(8)).info.run_id)
    except UsageError:
        raise
    except Exception as error:  # a tracking server that is away never stops work
        _log.warning("the runs of this sweep will have no common run in MLflow: %s", error)
        return ""


def _below(member: Member, parent: str) -> Member:
    tracking = member.cfg.tracking.model_copy(update={"parent": parent})
    return replace(member, cfg=member.cfg.model_copy(update={"tracking": tracking}))


def _failures(failed: Sequence[Ended], total: int, out: Path, report: Path) -> str:
    first = failed[0]
    name = first.member.cfg.run.name
    return (
        f"{len(failed)} of {plural(total, 'run')} failed, as {name} ({first.said or f'exit status {first.status}'}; "
        f"{out / name}.log); the same command tries them again; the others are in {report}"
    )
