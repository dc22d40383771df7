"""The index of a dataset against itself: dataset.json, plan.json, the exclusions and the unit manifests; pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.dataset import UnitIndex
from pipeline.text import plural
from preprocess.dataset.finish import Tally, removed_entries
from preprocess.dataset.manifests import unit_of
from preprocess.dataset.plan import Plan, StoredPlan
from preprocess.inspect.records import label_problems
from preprocess.inspect.report import Problem

_RESTORE = "restore plan.json from a copy"


def strays(info: Mapping[str, Any], units: Mapping[str, UnitIndex], objects: Mapping[str, int]) -> list[str]:
    """A line on objects that exist and that nothing names."""
    if len(units) < len(info["units"]):
        return []  # the shards of a unit whose manifest can't be read are no strays
    named = {"dataset.json", "plan.json"} | {raw["name"] for raw in info["units"]}
    named |= {entry.name for unit in units.values() for entry in unit.shards}
    if info["exclusions"]:
        named.add(info["exclusions"]["name"])
    found = sorted(objects.keys() - named)
    if not found:
        return []
    size = sum(objects[key] for key in found)
    return [
        f"{plural(len(found), 'object')} ({size / 1e6:.1f} MB) that dataset.json does not name, of runs that were "
        f"stopped or are still going: {', '.join(found[:3])}{' …' if len(found) > 3 else ''}"
    ]


def sample_problems(info: Mapping[str, Any], units: Mapping[str, UnitIndex]) -> Iterator[Problem]:
    """Unique keys, sources that are known, labels of the schema, no removed source."""
    removed = {raw["source"] for raw in info["removed"]}
    seen: set[str] = set()
    for key, unit in units.items():
        here = _sources(unit) | {sample.source for sample in unit.samples}
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
        yield from (Problem(text, key) for text in found)


def exclusion_problems(excluded: Sequence[Mapping[str, str]], units: Mapping[str, UnitIndex]) -> Iterator[Problem]:
    """Excluded samples that are none, or that nothing is kept for."""
    keys = {sample.key for unit in units.values() for sample in unit.samples}
    left_out = {entry["key"] for entry in excluded}
    for entry in excluded:
        key, kept = entry["key"], entry["kept"]
        if key not in keys:
            yield Problem(f"the exclusion list names {key}, which is no sample")
        elif kept not in keys or kept in left_out:
            yield Problem(f"{key} is excluded in favour of {kept}, which is not used")


def count_problems(info: Mapping[str, Any], tally: Tally, excluded: Sequence[Mapping[str, str]]) -> Iterator[Problem]:
    """What dataset.json counts is what the units hold."""
    content = tally.content(excluded)
    for name, number in content["counts"].items():
        if info["counts"][name] != number:
            yield Problem(f"dataset.json counts {info['counts'][name]} {name}, there are {number}")
    for field in ("splits", "quarantine", "dropped"):
        if info[field] != content[field]:
            yield Problem(f"dataset.json does not count the {field} as they are")


def plan_problems(info: Mapping[str, Any], units: Mapping[str, UnitIndex], stored: StoredPlan) -> Iterator[Problem]:
    """plan.json has these settings, these removals, and these sources in each unit.

    Nothing commits plan.json, which grows: what follows from it is compared instead.
    """
    plan = stored.plan
    if stored.settings != {name: info[name] for name in ("config", "models")}:
        text = "plan.json and dataset.json are of different settings: restore the one that `marlin preprocess` refuses"
        yield Problem(text, repairable=False)
    recorded, planned = ({entry["source"] for entry in one} for one in (info["removed"], removed_entries(plan)))
    if missing := planned - recorded:
        text = f"{plural(len(missing), 'removal')} not complete, as of {min(missing)}: run `marlin preprocess`"
        yield Problem(text, repairable=False)
    if lost := recorded - planned:
        text = f"plan.json lacks {plural(len(lost), 'removal')} that dataset.json records, as of {min(lost)}"
        yield Problem(f"{text}: {_RESTORE}", repairable=False)
    pieces = {unit.name: unit.pieces for unit in plan.units}
    for key, unit in units.items():
        wanted = {piece.source.name: piece.source for piece in pieces.get(unit_of(key), ())}
        wrong = (_sources(unit) - planned) ^ wanted.keys()
        wrong |= {
            record.name
            for record in unit.sources
            if record.name in wanted
            and (record.identity, dict(record.labels))
            != (wanted[record.name].identity, dict(wanted[record.name].labels))
        }
        if wrong:
            yield Problem(f"{key} and plan.json say different things of {min(wrong)}: {_RESTORE}", repairable=False)


def pending(info: Mapping[str, Any], plan: Plan) -> list[str]:
    """A line on units that are planned and not in the dataset."""
    missing = {unit.name for unit in plan.units} - {unit_of(raw["name"]) for raw in info["units"]}
    return (
        [f"{plural(len(missing), 'planned unit')} not in the dataset yet: run `marlin preprocess`"] if missing else []
    )


def _sources(unit: UnitIndex) -> set[str]:
    return {entry["source"] for field in ("sources", "quarantined") for entry in unit.head[field]}
