"""The preprocessing stage: raw videos to a dataset, resumable and safe to repeat."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store
from pipeline.provenance import versions
from pipeline.storage import AlreadyExists, Conflict, NotFound, Store, Versioned
from pipeline.storage.manifest import parse_json, to_json
from preprocess.corpora import open_corpus
from preprocess.models import parser_name
from preprocess.plan import Unit, update_plan
from preprocess.regions import REGIONS
from preprocess.settings import check_same, content_settings
from preprocess.unit import read_manifest

log = logging.getLogger(__name__)

DATASET = "dataset.json"
SCHEMA = 1


@dataclass(frozen=True)
class Summary:
    """What a finished stage leaves.

    Attributes:
        url: where the dataset lies.
        identity: sha256 of dataset.json.
        counts: sources, quarantined, units, tracks, samples, frames.
        splits: samples by split.
        quarantine: quarantined sources by reason.
        new_units: units that this call processed; 0 when everything was there.
    """

    url: str
    identity: str
    counts: Mapping[str, int]
    splits: Mapping[str, int]
    quarantine: Mapping[str, int]
    new_units: int


def run_preprocess(cfg: Config, progress: bool = True) -> Summary:
    """Makes the dataset of a configuration, or what is missing of it.

    Args:
        cfg: the whole configuration; `corpus`, `preprocess` and `storage` matter here.
        progress: show progress bars.

    Raises:
        UsageError: no such corpus, or the dataset there was made with other settings.
        MarlinError: storage or Ray fails, nothing usable in the corpus, or more than `preprocess.max_failed` of the
            sources are quarantined (what was done is kept).
    """
    store = dataset_store(cfg)
    settings = content_settings(cfg.preprocess)
    units = update_plan(store, open_corpus(cfg.corpus), cfg.preprocess, settings, progress)
    stored = _read_dataset(store)
    if stored is not None:
        info = parse_json(stored.data, f"{store.url}/dataset.json")
        check_same(info, settings, store.url)
        if [entry["name"] for entry in info["units"]] == [unit.manifest for unit in units]:
            return _summary(store, stored.data, new_units=0)
    done = {item.key for item in store.list("units/")}
    todo = [unit for unit in units if unit.manifest not in done]
    if todo:
        store.check()
        _process(cfg, store, units, todo, progress)
    data = _dataset_json(cfg, store, units, settings)
    try:
        if stored is None:
            store.create(DATASET, data)
        else:
            store.replace(DATASET, data, stored.version)
    except (AlreadyExists, Conflict) as error:
        if store.read(DATASET) != data:
            raise MarlinError(f"another run wrote {store.url}/{DATASET} meanwhile: run again") from error
    return _summary(store, data, new_units=len(todo))


def _read_dataset(store: Store) -> Versioned | None:
    try:
        return store.read_versioned(DATASET)
    except NotFound:
        return None


def _process(cfg: Config, store: Store, units: list[Unit], todo: list[Unit], progress: bool) -> None:
    # Ray takes seconds to import and to start: not before there is work.
    from preprocess.worker import cluster, process_units

    quarantined: Counter[str] = Counter()
    frames = 0
    with (
        tqdm(
            desc="preprocess", total=len(units), initial=len(units) - len(todo), disable=not progress, unit="unit"
        ) as bar,
        cluster(cfg.preprocess) as workers,
    ):
        for manifest in process_units(cfg, store, todo, workers):
            frames += sum(sample["frames"] for sample in manifest["samples"])
            quarantined.update(entry["reason"] for entry in manifest["quarantined"])
            bar.update()
            rate = frames / max(bar.format_dict["elapsed"], 1e-3)
            shown = ", ".join(f"{reason} {count}" for reason, count in sorted(quarantined.items())) or "none"
            bar.set_postfix_str(f"{frames} face frames, {rate:.0f}/s, quarantined: {shown}")


def _dataset_json(cfg: Config, store: Store, units: list[Unit], settings: Mapping[str, Any]) -> bytes:
    manifests = [read_manifest(store, unit.name) for unit in units]
    samples = [sample for manifest in manifests for sample in manifest["samples"]]
    good = {entry["source"] for manifest in manifests for entry in manifest["sources"]}
    # A long video is bad when all its spans are: one span without a face is no fault of the video.
    bad = {
        entry["source"]: entry
        for manifest in manifests
        for entry in manifest["quarantined"]
        if entry["source"] not in good
    }
    _check_quarantine(cfg, bad, len(good), len(samples))
    return to_json(
        {
            "schema": SCHEMA,
            "name": cfg.corpus.name,
            "size": cfg.preprocess.size,
            "patch": cfg.preprocess.patch,
            "frames": cfg.preprocess.clip_frames,
            "regions": list(REGIONS),
            **settings,
            "parser": parser_name(cfg.preprocess),
            "versions": versions(),
            "counts": {
                "sources": len(good) + len(bad),
                "quarantined": len(bad),
                "units": len(units),
                "tracks": sum(entry["tracks"] for manifest in manifests for entry in manifest["sources"]),
                "samples": len(samples),
                "frames": sum(sample["frames"] for sample in samples),
            },
            "splits": {split: sum(sample["split"] == split for sample in samples) for split in ("train", "val")},
            "quarantine": _by_reason(bad.values()),
            "units": [_unit_entry(unit, manifest) for unit, manifest in zip(units, manifests, strict=True)],
        }
    )


def _unit_entry(unit: Unit, manifest: Mapping[str, Any]) -> dict[str, Any]:
    data = to_json(manifest)  # canonical, so these are the bytes that lie in storage
    return {"name": unit.manifest, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _by_reason(entries: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    return dict(sorted(Counter(str(entry["reason"]) for entry in entries).items()))


def _check_quarantine(cfg: Config, bad: Mapping[str, Mapping[str, Any]], good: int, samples: int) -> None:
    total = good + len(bad)
    reasons = ", ".join(f"{reason} {count}" for reason, count in _by_reason(bad.values()).items())
    first = next(iter(bad.values()), None)
    example = f", as {first['source']}: {first['detail']}" if first else ""
    if len(bad) > cfg.preprocess.max_failed * total:
        raise MarlinError(
            f"{len(bad)} of {total} sources are quarantined ({reasons}{example}), more than "
            f"preprocess.max_failed={cfg.preprocess.max_failed}: mend the corpus, or raise it"
        )
    if not samples:
        raise MarlinError(f"no samples came out of {total} sources ({reasons}{example}): check corpus.path")


def _summary(store: Store, data: bytes, new_units: int) -> Summary:
    info = json.loads(data)
    summary = Summary(
        url=store.url,
        identity=hashlib.sha256(data).hexdigest(),
        counts=info["counts"],
        splits=info["splits"],
        quarantine=info["quarantine"],
        new_units=new_units,
    )
    log.info("dataset %s: %s", store.url, ", ".join(f"{count} {what}" for what, count in summary.counts.items()))
    return summary
