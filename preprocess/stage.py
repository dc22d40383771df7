"""The preprocessing stage: raw videos to a dataset, resumable and safe to repeat."""

import hashlib
import json
import logging
from dataclasses import replace

from pipeline.config.schema import Config
from pipeline.dataset import parse
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store
from pipeline.storage import Store
from preprocess.cluster.progress import follow
from preprocess.corpora import Listing, list_corpus
from preprocess.dataset.finish import manifest_keys, read_dataset, write_dataset
from preprocess.dataset.plan import Plan, Unit, read_plan
from preprocess.dataset.planning import at_home, extend_plan
from preprocess.dataset.removal import settle, sweep, take_out
from preprocess.dataset.settings import check_same, content_settings
from preprocess.dataset.summary import Summary

log = logging.getLogger(__name__)


def run_preprocess(cfg: Config, progress: bool = True, *, needs_sources: bool = False) -> Summary:
    """Makes the dataset of a configuration, or what is missing of it.

    Args:
        cfg: the whole configuration; `corpus`, `preprocess` and `storage` matter here.
        progress: show how far it is.
        needs_sources: an empty corpus is an error also where the dataset has units of others to go on with.

    Raises:
        UsageError: no such corpus, or the dataset there was made with other settings.
        MarlinError: storage or Ray fails, nothing usable in the corpus, more of it lacks a video or a label than
            `corpus.max_missing` and `corpus.max_unlabelled` tolerate (nothing was planned), or more than
            `preprocess.max_failed` of the sources are quarantined (what was done is kept).
    """
    store = dataset_store(cfg)
    settings = content_settings(cfg.preprocess)
    listing = list_corpus(cfg.corpus)
    for finding in listing.findings:
        log.warning("%s", finding)
    if needs_sources and not listing.sources:
        raise MarlinError(
            f"{cfg.corpus.path} holds no source of corpus.kind={cfg.corpus.kind}: check corpus.path, kind and splits"
        )
    settle(store)
    plan, new = extend_plan(store, cfg, listing, settings, progress)
    stored = read_dataset(store)
    if stored is not None:
        check_same(parse(stored.data, f"{store.url}/dataset.json"), settings, store.url)
    done = manifest_keys(store)
    todo = at_home([unit for unit in plan.units if unit.name not in done], cfg, listing)
    if todo:
        store.check()
        _process(cfg, store, plan, todo, progress)
    if stored is not None and not todo and _lists(stored.data, [done[unit.name] for unit in plan.units]):
        data = stored.data
    else:
        # A source may have been taken out meanwhile, even one that a worker had in hand.
        plan = replace(plan, removed=read_plan(store, settings).plan.removed)
        take_out(store, plan)
        data = write_dataset(cfg, store, plan, settings, findings=listing.findings, before=stored)
        sweep(store, plan)
    info, refused = json.loads(data), _refused(listing, plan)
    return Summary(
        url=store.url,
        identity=hashlib.sha256(data).hexdigest(),
        counts=info["counts"],
        splits=info["splits"],
        quarantine=info["quarantine"],
        dropped=info["dropped"],
        before=json.loads(stored.data)["counts"] if stored else {},
        new_units=len(todo),
        new_sources=new,
        known_sources=len(listing.sources) - new - refused,
        refused_sources=refused,
    )


def append(cfg: Config, progress: bool = True) -> Summary:
    """Extends a finished dataset by the sources of the configured corpus, as `run_preprocess` does.

    Raises:
        MarlinError: there is no finished dataset, the corpus is empty, and as `run_preprocess`.
    """
    store = dataset_store(cfg)
    if read_dataset(store) is None:
        raise MarlinError(f"{store.url} holds no finished dataset to extend: run `marlin preprocess` first")
    return run_preprocess(cfg, progress, needs_sources=True)


def _lists(dataset: bytes, manifests: list[str]) -> bool:
    return [entry["name"] for entry in json.loads(dataset)["units"]] == manifests


def _process(cfg: Config, store: Store, plan: Plan, todo: list[Unit], progress: bool) -> None:
    if cfg.preprocess.ray_address == "none":
        from preprocess.cluster.alone import process_units_here

        with follow(plan.units, todo, progress) as report:
            for manifest in process_units_here(cfg, todo):
                report(manifest)
        return
    # Ray takes seconds to import and to start: not before there is work.
    from preprocess.cluster.worker import cluster, process_units

    with follow(plan.units, todo, progress) as report, cluster(cfg.preprocess) as workers:
        for manifest in process_units(cfg, store, todo, workers):
            report(manifest)


def _refused(listing: Listing, plan: Plan) -> int:
    names, people = {gone.source for gone in plan.removed}, plan.removed_identities()
    return sum(source.name in names or bool(source.everyone & people) for source in listing.sources)
