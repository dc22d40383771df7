"""`marlin dataset verify`: every object against what commits it, every sample against the format."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.dataset import Damaged, Sample, UnitIndex, parse, parse_unit, read_committed, read_exclusions, read_info
from pipeline.storage import NotFound, Store
from pipeline.storage.manifest import FileEntry
from preprocess.dataset.finish import Tally
from preprocess.dataset.plan import read_plan
from preprocess.dataset.shards import checked_shard, gaps
from preprocess.inspect import index
from preprocess.inspect.records import DatasetInfo, UnitManifest, record_problems
from preprocess.inspect.report import Problem, Report
from preprocess.inspect.samples import Form, sample_problems

_MOST_THREADS = 8


def verify(store: Store, *, deep: bool = False) -> Report:
    """Checks a dataset whole; reads all of its shards, a few at a time.

    Args:
        store: the dataset.
        deep: also decode every picture and all sound, and compute the region tags again.

    Raises:
        MarlinError: there is no finished dataset, it is of another schema version, or the storage fails.
    """
    data = read_info(store)
    report = Report(store.url, hashlib.sha256(data).hexdigest())
    try:
        info = parse(data, f"{store.url}/dataset.json")
    except Damaged as damaged:
        report.problems.append(Problem(_said(store, "dataset.json", damaged)))
        return report
    wrong = record_problems(DatasetInfo, data)
    report.problems += [Problem(f"dataset.json: {line}") for line in wrong]
    if wrong:
        return report
    tally = Tally()
    units = dict(_read_units(store, info, tally, report))
    _check_index(store, info, units, tally, report)
    report.warnings += index.strays(info, units, {item.key: item.size for item in store.list()})
    _check_plan(store, info, units, report)
    _check_shards(store, info, units, report, deep)
    return report


def _read_units(store: Store, info: Mapping[str, Any], tally: Tally, report: Report) -> Iterator[tuple[str, UnitIndex]]:
    """The manifests that are as committed; they are counted too."""

    def read(raw: Mapping[str, Any]) -> tuple[bytes, str]:
        try:
            return read_committed(store, FileEntry.from_dict(raw)), ""
        except (NotFound, Damaged) as error:
            return b"", _said(store, raw["name"], error)

    with ThreadPoolExecutor(_MOST_THREADS) as pool:
        for raw, (data, error) in zip(info["units"], pool.map(read, info["units"]), strict=True):
            key = raw["name"]
            found = [error] if error else [f"{key}: {line}" for line in record_problems(UnitManifest, data)]
            try:
                if not found:
                    yield key, parse_unit(data, key)
                    tally.add(key, json.loads(data))
            except Damaged as damaged:
                found = [damaged.what]
            report.problems += [Problem(text, key) for text in found]


def _check_index(
    store: Store, info: Mapping[str, Any], units: Mapping[str, UnitIndex], tally: Tally, report: Report
) -> None:
    report.problems += index.sample_problems(info, units)
    try:
        excluded = read_exclusions(store, info)
    except (NotFound, Damaged) as error:
        report.problems.append(Problem(_said(store, info["exclusions"]["name"], error)))
        return
    report.excluded = len(excluded)
    if len(units) == len(info["units"]):
        report.problems += index.exclusion_problems(excluded, units)
        report.problems += index.count_problems(info, tally, excluded)


def _check_plan(store: Store, info: Mapping[str, Any], units: Mapping[str, UnitIndex], report: Report) -> None:
    try:
        stored = read_plan(store)
    except Damaged as damaged:
        report.problems.append(Problem(str(damaged).removeprefix(f"{store.url}/"), repairable=False))
        return
    report.problems += index.plan_problems(info, units, stored)
    report.warnings += index.pending(info, stored.plan)


def _check_shards(
    store: Store, info: Mapping[str, Any], units: Mapping[str, UnitIndex], report: Report, deep: bool
) -> None:
    form = Form(info["size"], info["patch"], info["labels"], bool(info["config"].get("label_maps")), deep)
    tasks = [(key, entry, samples) for key, unit in units.items() for entry, samples in _by_shard(unit)]

    def check(task: tuple[str, FileEntry, list[Sample]]) -> list[Problem]:
        key, entry, samples = task
        with tempfile.TemporaryDirectory(prefix="marlin-verify-") as folder:
            try:
                path = checked_shard(store, entry, Path(folder, "shard.tar"))
            except (NotFound, Damaged) as error:
                return [Problem(_said(store, entry.name, error), key)]
            return [Problem(f"{entry.name}: {line}", key) for line in _shard_problems(path, samples, form)]

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        found = tqdm(pool.map(check, tasks), "verify", len(tasks), unit=" shards", disable=not sys.stderr.isatty())
        for (_, _, samples), problems in zip(tasks, found, strict=True):
            report.shards += 1
            report.samples += len(samples)
            report.frames += sum(sample.frames for sample in samples)
            report.problems += problems


def _said(store: Store, key: str, error: NotFound | Damaged) -> str:
    """What is wrong with an object; what to do is said once, at the end."""
    return error.what.removeprefix(f"{store.url}/") if isinstance(error, Damaged) else f"{key} is gone"


def _by_shard(unit: UnitIndex) -> Iterable[tuple[FileEntry, list[Sample]]]:
    return [(entry, [sample for sample in unit.samples if sample.shard == entry.name]) for entry in unit.shards]


def _shard_problems(path: Path, samples: list[Sample], form: Form) -> Iterator[str]:
    with path.open("rb") as file:
        yield from gaps(file, {sample.key: sample.parts for sample in samples})
        for sample in samples:
            parts = {}
            for name, (offset, length) in sample.parts.items():
                file.seek(offset)
                parts[name] = file.read(length)
            yield from (f"{sample.key}: {line}" for line in sample_problems(sample, parts, form))
