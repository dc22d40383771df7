"""`marlin dataset verify`: every object against what commits it, every sample against the format."""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.dataset import Sample, UnitIndex, parse, parse_unit, read_committed, read_exclusions, read_info
from pipeline.errors import MarlinError
from pipeline.storage import Store
from pipeline.storage.manifest import FileEntry
from pipeline.text import plural, printable
from preprocess.dataset.plan import read_plan
from preprocess.dataset.shards import checked_shard, gaps
from preprocess.inspect.records import DatasetInfo, UnitManifest, label_problems, record_problems
from preprocess.inspect.samples import Form, sample_problems

_MOST_THREADS = 8


@dataclass(frozen=True)
class Problem:
    """Something that is not as committed; `unit` is the manifest's key where it lies in one unit."""

    text: str
    unit: str | None = None


@dataclass
class Report:
    """What a check found."""

    url: str
    shards: int = 0
    samples: int = 0
    frames: int = 0
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def units(self) -> list[str]:
        """Keys of the manifests of the units that have problems."""
        return sorted({problem.unit for problem in self.problems if problem.unit})

    def lines(self, most: int) -> list[str]:
        """All that was found, as lines to print; at most so many problems."""
        lines = [printable(problem.text) for problem in self.problems[:most]]
        if len(self.problems) > most:
            lines.append(f"… and {len(self.problems) - most} more")
        lines += [f"warning: {printable(text)}" for text in self.warnings]
        if not self.problems:
            what = f"{plural(self.shards, 'shard')}, {plural(self.samples, 'sample')}, {plural(self.frames, 'frame')}"
            lines.append(f"{self.url}: {what}, all as committed")
        return lines


def verify(store: Store, *, deep: bool = False) -> Report:
    """Checks a dataset whole; reads all of its shards, a few at a time.

    Args:
        store: the dataset.
        deep: also decode every picture and all sound, and compute the region tags again.

    Raises:
        MarlinError: there is no finished dataset, or the storage fails.
    """
    report = Report(store.url)
    data = read_info(store)
    try:
        info = parse(data, f"{store.url}/dataset.json")
    except MarlinError as error:
        report.problems.append(Problem(str(error)))
        return report
    wrong = record_problems(DatasetInfo, data)
    report.problems += [Problem(f"dataset.json: {line}") for line in wrong]
    if wrong:
        return report
    objects = {item.key: item.size for item in store.list()}
    units = dict(_read_units(store, info, report))
    _check_objects(info, units, objects, report)
    _check_index(info, units, report)
    _check_exclusions(store, info, units, report)
    _check_plan(store, info, units, report)
    _check_shards(store, info, units, report, deep)
    return report


def _read_units(store: Store, info: Mapping[str, Any], report: Report) -> Iterator[tuple[str, UnitIndex]]:
    def read(raw: Mapping[str, Any]) -> tuple[bytes, str]:
        try:
            return read_committed(store, FileEntry.from_dict(raw)), ""
        except MarlinError as error:
            return b"", str(error)

    with ThreadPoolExecutor(_MOST_THREADS) as pool:
        for raw, (data, error) in zip(info["units"], pool.map(read, info["units"]), strict=True):
            key = raw["name"]
            found = [error] if error else [f"{key}: {line}" for line in record_problems(UnitManifest, data)]
            try:
                if not found:
                    yield key, parse_unit(data, f"{store.url}/{key}")
            except MarlinError as broken:
                found = [str(broken)]
            report.problems += [Problem(text, key) for text in found]


def _check_objects(
    info: Mapping[str, Any], units: Mapping[str, UnitIndex], objects: Mapping[str, int], report: Report
) -> None:
    """All objects that are named exist; all that exist are named."""
    named = {"dataset.json", "plan.json"} | {raw["name"] for raw in info["units"]}
    if info["exclusions"]:
        named.add(info["exclusions"]["name"])
    for key, unit in units.items():
        named.update(entry.name for entry in unit.shards)
        report.problems += [Problem(f"{entry.name} is gone", key) for entry in unit.shards if entry.name not in objects]
    strays = sorted(objects.keys() - named)
    # The shards of a unit whose manifest can't be read are not strays.
    strays = strays if len(units) == len(info["units"]) else []
    if strays:
        size = sum(objects[key] for key in strays)
        report.warnings.append(
            f"{plural(len(strays), 'object')} ({size / 1e6:.1f} MB) that dataset.json does not name, of runs that were "
            f"stopped or are still going: {', '.join(strays[:3])}{' …' if len(strays) > 3 else ''}"
        )


def _check_index(info: Mapping[str, Any], units: Mapping[str, UnitIndex], report: Report) -> None:
    """The index of samples: unique keys, sources that are known, labels of the schema, no removed source."""
    removed = {raw["source"] for raw in info["removed"]}
    seen: set[str] = set()
    for key, unit in units.items():
        here = {entry["source"] for field in ("sources", "quarantined") for entry in unit.head[field]}
        here |= {sample.source for sample in unit.samples}
        found = [f"{key}: {name} was taken out of the dataset and is still there" for name in sorted(here & removed)]
        known = {record.name: record.identity for record in unit.sources}
        for sample in unit.samples:
            if sample.key in seen:
                found.append(f"{key}: key {sample.key} is not unique")
            seen.add(sample.key)
            if known.get(sample.source) != sample.identity:
                found.append(f"{key}: sample {sample.key} is of no source in it")
        for record in unit.sources:
            found += [f"{key}: {record.name}: {line}" for line in label_problems(info["labels"], record.labels)]
        report.problems += [Problem(text, key) for text in found]


def _check_exclusions(store: Store, info: Mapping[str, Any], units: Mapping[str, UnitIndex], report: Report) -> None:
    """The exclusion list fits the samples, and dataset.json counts what is then used."""
    try:
        excluded = {raw["key"]: raw["kept"] for raw in read_exclusions(store, info)}
    except MarlinError as error:
        report.problems.append(Problem(str(error)))
        return
    if len(units) < len(info["units"]):
        return
    samples = {sample.key: sample for unit in units.values() for sample in unit.samples}
    used = [sample for key, sample in samples.items() if key not in excluded]
    for key, kept in excluded.items():
        if key not in samples:
            report.problems.append(Problem(f"the exclusion list names {key}, which is no sample"))
        elif kept not in samples or kept in excluded:
            report.problems.append(Problem(f"{key} is excluded in favour of {kept}, which is not used"))
    counted = {"samples": len(used), "frames": sum(s.frames for s in used), "excluded": len(excluded)}
    problems = [
        f"dataset.json counts {info['counts'][name]} {name}, there are {number}"
        for name, number in counted.items()
        if info["counts"][name] != number
    ]
    if Counter(sample.split for sample in used) != Counter(info["splits"]):
        problems.append("dataset.json does not count the splits as they are")
    report.problems += map(Problem, problems)


def _check_plan(store: Store, info: Mapping[str, Any], units: Mapping[str, UnitIndex], report: Report) -> None:
    try:
        plan = read_plan(store).plan
    except MarlinError as error:
        report.problems.append(Problem(str(error)))
        return
    missing = {gone.source for gone in plan.removed} - {raw["source"] for raw in info["removed"]}
    if missing:
        report.problems.append(
            Problem(f"{plural(len(missing), 'removal')} not complete, as of {min(missing)}: run `marlin preprocess`")
        )
    pending = {unit.name for unit in plan.units} - {key.removeprefix("units/").partition(".")[0] for key in units}
    pending -= {Path(raw["name"]).name.partition(".")[0] for raw in info["units"]}
    if pending:
        report.warnings.append(
            f"{plural(len(pending), 'planned unit')} not in the dataset yet: run `marlin preprocess`"
        )


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
            except MarlinError as error:
                return [Problem(str(error), key)]
            return [Problem(f"{entry.name}: {line}", key) for line in _shard_problems(path, samples, form)]

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        found = tqdm(pool.map(check, tasks), "verify", len(tasks), unit=" shards", disable=not sys.stderr.isatty())
        for (_, _, samples), problems in zip(tasks, found, strict=True):
            report.shards += 1
            report.samples += len(samples)
            report.frames += sum(sample.frames for sample in samples)
            report.problems += problems


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
