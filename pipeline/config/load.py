"""Read a configuration: a preset or a YAML file, then ``section.key=value`` overrides."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.text import nearest

_PRESET_KEY = "preset"
_MOST_LISTED = 10
# Keys of a section that exclude each other: one choice, made by the layer on top.
_CHOICES = {"train": ("steps", "epochs"), "data": ("dataset", "mix")}


def preset_names() -> list[str]:
    """Names that ``-c`` takes instead of a path."""
    folder = resources.files("pipeline") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(source: str, overrides: Sequence[str] = ()) -> Config:
    """Resolve a configuration.

    Args:
        source: name of a preset, or path of a YAML file; a file may start from a preset with ``preset: NAME``.
        overrides: ``section.key=value`` strings, values in YAML.

    Raises:
        UsageError: the source is missing or no YAML mapping, a key is unknown, or a value has the wrong type or range.
    """
    return validate(_layer(_read(source), _parse_overrides(overrides)), source)


def override(cfg: Config, overrides: Sequence[str]) -> Config:
    """A configuration with other values, given as to `load_config`.

    Raises:
        UsageError: as `load_config`.
    """
    return validate(_layer(cfg.model_dump(mode="json"), _parse_overrides(overrides)), "overrides")


def validate(tree: Mapping[str, Any], source: str) -> Config:
    """Check a tree of plain values against the schema; ``source`` names it in errors."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(_explain(item) for item in error.errors())
        raise UsageError(f"{source}: {problems}") from None


def dump_config(cfg: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back."""
    return yaml.safe_dump(cfg.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(source: str) -> dict[str, Any]:
    if source in preset_names():
        return _parse((resources.files("pipeline") / "presets" / f"{source}.yaml").read_text("utf-8"), source)
    path = Path(source)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        near = _nearest(source, preset_names())
        raise UsageError(
            f"no preset and no file is named '{source}'{near}; presets: {', '.join(preset_names())}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read the configuration {source}: {_reason(error)}") from None
    tree = _parse(text, source)
    base = tree.pop(_PRESET_KEY, None)
    if base is None:
        return tree
    if base not in preset_names():
        raise UsageError(f"{source}: preset '{base}' does not exist; presets: {', '.join(preset_names())}")
    return _layer(_read(base), tree)


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise UsageError(
            f"{source} is not valid YAML{line}: {getattr(error, 'problem', None) or 'unreadable'}"
        ) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{source} must hold sections such as 'train:', not a {type(tree).__name__}")
    return tree


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged


def _layer(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` on top of ``base``, where keys that exclude each other replace each other: steps epochs, and back."""
    merged = _merge(base, over)
    for section, keys in _CHOICES.items():
        above, below = over.get(section), merged.get(section)
        if isinstance(above, Mapping) and isinstance(below, dict):
            for chosen, other in (keys, keys[::-1]):
                if above.get(chosen) not in (None, "", []) and other not in above:
                    below.pop(other, None)
    return merged


def _parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for each in overrides:
        given = _merge(given, _parse_override(each))
    return given


def _parse_override(override: str) -> dict[str, Any]:
    path, equals, text = override.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise UsageError(f"'{override}' is no override: write section.key=value, for instance train.steps=100")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        raise UsageError(f"the value of '{override}' is not valid YAML: quote it") from None
    tree: dict[str, Any] = {keys[-1]: value}
    for key in reversed(keys[:-1]):
        tree = {key: tree}
    return tree


def _explain(item: Mapping[str, Any]) -> str:
    """One problem in words: the dotted key, what is wrong, what is near."""
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        return f"unknown key '{key}'{_nearest_key(location)}"
    if item["type"] == "missing":
        return f"'{key}' is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    if not key:
        return message
    if item["type"] == "value_error":  # our own words say what they may of the value, which can be a secret
        return f"{key}: {message}"
    given = json.dumps(item["input"], default=str)[:60]
    known = re.findall("'([^']*)'", item["ctx"]["expected"]) if item["type"] == "literal_error" else []
    if len(known) > _MOST_LISTED:
        return f"{key}: {given} is none of its {len(known)} values{nearest(str(item['input']), known)}"
    return f"{key}: {message}, not {given}"


def _nearest_key(location: Sequence[str]) -> str:
    known = _fields(location[:-1])
    match = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
    if match:
        return f" (did you mean '{'.'.join([*location[:-1], match[0]])}'?)"
    every = [(*path, name) for path, name in _leaves(Config)]
    elsewhere = [".".join(path) for path in every if path[-1] == location[-1]]
    if elsewhere:
        return f" (did you mean '{elsewhere[0]}'?)"
    return f" (known here: {', '.join(known)})" if known else ""


def _leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], str]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, (*path, name))
        else:
            yield path, name


def _fields(path: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Config
    for name in path:
        if name.isdecimal():  # a place in a list, whose entries were looked up by the list's name
            continue
        inner = model.model_fields[name].annotation if name in model.model_fields else None
        if get_origin(inner) is tuple:
            inner = get_args(inner)[0]
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def _nearest(word: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{match[0]}'?)" if match else ""


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
