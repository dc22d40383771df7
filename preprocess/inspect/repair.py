"""Drops units that are damaged or hold quarantined sources: `marlin preprocess` makes exactly them again."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from pipeline.config.schema import Config
from pipeline.dataset import Damaged, parse
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import dataset_store
from pipeline.storage import Store
from preprocess.corpora import list_corpus, open_media
from preprocess.dataset.finish import DATASET, manifest_keys, read_dataset, rewrite_dataset
from preprocess.dataset.manifests import read_manifest, read_manifests, revisions, unit_of
from preprocess.dataset.plan import Plan, Unit, read_plan
from preprocess.dataset.planning import at_home
from preprocess.inspect.records import DatasetInfo, record_problems
from preprocess.inspect.report import Report
from preprocess.quarantine import BadSource, Reason


@dataclass(frozen=True)
class Repair:
    """What was done to units that are to be made again.

    Attributes:
        dropped: the units that are taken out.
        kept: those that are not, each with the reason.
        dataset: what became of dataset.json; empty where it did not change.
        sources: the quarantined sources in units that are taken out.
    """

    dropped: tuple[str, ...]
    kept: tuple[str, ...]
    dataset: Literal["", "put anew", "removed"] = ""
    sources: tuple[str, ...] = ()


def repair(cfg: Config, report: Report) -> Repair:
    """Takes the units with problems out of dataset.json, then deletes their manifests.

    The dataset stays readable all the time, without those units until they are made again. A unit whose raw videos
    can't be reached stays: what is left of it is all there is.

    Raises:
        Damaged: plan.json is gone or damaged: nothing could be made again.
        MarlinError: the corpus can't be listed.
    """
    bad = [unit_of(key) for key in report.units()]
    return _drop(cfg, bad, dataset_too=any(problem.repairable and not problem.unit for problem in report.problems))


def retry(cfg: Config, reasons: Collection[str]) -> Repair:
    """Takes the units with sources that are quarantined for one of these reasons out, as `repair` does.

    For what may pass: a server that was down, a permission that is there by now, a mistake of our own.

    Raises:
        UsageError: there is no such reason.
        MarlinError: a manifest or the plan is damaged, or the corpus can't be listed.
    """
    if unknown := sorted(set(reasons) - set(get_args(Reason))):
        raise UsageError(f"--reason {unknown[0]}: no such reason; there are {', '.join(get_args(Reason))}")
    store = dataset_store(cfg)
    manifests = read_manifests(store, list(manifest_keys(store).values()))
    quarantined = {
        unit_of(key): {entry["source"] for entry in manifest["quarantined"] if entry["reason"] in reasons}
        for key, manifest in manifests
    }
    done = _drop(cfg, [name for name, sources in quarantined.items() if sources], dataset_too=False)
    return replace(done, sources=tuple(sorted(set().union(*(quarantined[name] for name in done.dropped)))))


def _drop(cfg: Config, bad: Sequence[str], *, dataset_too: bool) -> Repair:
    store = dataset_store(cfg)
    plan = read_plan(store).plan
    units = {
        unit.name: unit for unit in at_home([u for u in plan.units if u.name in bad], cfg, list_corpus(cfg.corpus))
    }
    lost = {name: _lost(store, units.get(name)) for name in bad}
    dropped = [name for name in bad if not lost[name]]
    dataset = _republish(store, plan, dropped) if dropped or dataset_too else ""
    for name in dropped:
        for key in revisions(store, name):
            store.delete(key)
    return Repair(tuple(dropped), tuple(f"{name}: {reason}" for name, reason in lost.items() if reason), dataset)


def _republish(store: Store, plan: Plan, dropped: Sequence[str]) -> Literal["", "put anew", "removed"]:
    before = read_dataset(store)
    if before is None:
        return ""
    try:
        info = parse(before.data, f"{store.url}/{DATASET}")
    except Damaged:
        info = {}
    if not info or record_problems(DatasetInfo, before.data):
        store.delete(DATASET)  # `marlin preprocess` puts it anew from the units
        return "removed"
    listed = [unit_of(raw["name"]) for raw in info["units"]]
    there = manifest_keys(store)
    rewrite_dataset(store, plan, [name for name in listed if name not in dropped and name in there], before)
    return "put anew"


def _lost(store: Store, unit: Unit | None) -> str:
    """Why a unit could not be made again; empty when it could."""
    if unit is None:
        return "plan.json does not know it"
    try:
        gone = _gone(unit)
    except UsageError as error:
        return f"its corpus can't be opened ({error})"
    try:
        needed = {entry["source"] for entry in read_manifest(store, revisions(store, unit.name)[-1])["sources"]}
    except (MarlinError, IndexError, KeyError, TypeError):
        # What it held is not known: one video that is there is reason enough to make it again.
        needed = set(gone) if len(gone) == len(unit.pieces) else set()
    missing = sorted(needed & gone.keys())
    if not missing:
        return ""
    return f"its raw video {missing[0]} can't be read ({gone[missing[0]].detail}): bring it back, or take it out"


def _gone(unit: Unit) -> dict[str, BadSource]:
    """The sources of a unit that can't be read, by name. Raises `UsageError` where their corpus is gone."""
    media = open_media(unit.root.kind, unit.root.path)
    gone = {}
    for piece in unit.pieces:
        try:
            media.probe(piece.source)
        except BadSource as bad:
            gone[piece.source.name] = bad
    return gone
