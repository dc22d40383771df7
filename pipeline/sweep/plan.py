"""What a sweep consists of: a file or ready sweep, and the configuration of each of its runs."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.config.section import Name, NonNegativeInt, PositiveInt, Section
from pipeline.errors import UsageError

Value = str | int | float | bool | None
Overrides = tuple[str, ...]


class SweepConfig(Section):
    """A sweep: variants of a base configuration, each with every seed.

    Attributes:
        name: of the sweep; its runs are `<name>-<variant>-s<seed>`.
        base: preset, or YAML file.
        overrides: `section.key=value` of all runs.
        variants: `section.key=value` of each variant, by its name; the first one is what others are compared with.
        grid: or values of some keys, all of whose combinations are variants.
        seeds: values of `train.seed`; variants are compared seed by seed.
        workers: runs at once.
    """

    name: Name
    base: str
    overrides: Overrides = ()
    variants: Mapping[Name, Overrides] = Field(default_factory=dict)
    grid: Mapping[str, Annotated[tuple[Value, ...], Field(min_length=1)]] = Field(default_factory=dict)
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)
    workers: PositiveInt = 1


@dataclass(frozen=True)
class Member:
    """One run of a sweep."""

    variant: str
    seed: int
    cfg: Config


def sweep_names() -> list[str]:
    """The ready sweeps."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _ready().iterdir() if entry.name.endswith(".yaml"))


def load_sweep(source: str, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read a sweep.

    Args:
        source: name of a ready sweep, or path of a YAML file.
        overrides: `key=value` of the sweep (`base`, `name`, `seeds`, `workers`), or `section.key=value` of all runs.

    Raises:
        UsageError: there is none, or it says what it can't.
    """
    tree = _read(source)
    own = {key: value for key, _, value in (one.partition("=") for one in overrides) if key in SweepConfig.model_fields}
    tree |= {key: yaml.safe_load(value) for key, value in own.items()}
    runs = [one for one in overrides if one.partition("=")[0] not in SweepConfig.model_fields]
    tree["overrides"] = [*(tree.get("overrides") or ()), *runs]
    try:
        sweep = SweepConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{source}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if bool(sweep.variants) == bool(sweep.grid):
        raise UsageError(f"{source}: a sweep needs variants or a grid, and not both")
    return sweep


def members_of(sweep: SweepConfig) -> list[Member]:
    """The runs of a sweep, variant by variant within a seed, so that each seed's comparison is whole early.

    Raises:
        UsageError: a configuration is wrong, or two runs would have the same name.
    """
    variants = dict(sweep.variants) or _combinations(sweep.grid)
    made = [
        Member(variant, seed, _config(sweep, variant, overrides, seed))
        for seed in sweep.seeds
        for variant, overrides in variants.items()
    ]
    names = [member.cfg.run.name for member in made]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"sweep {sweep.name}: two runs would be named {twice[0]}: name its variants, or mend its seeds"
        )
    return made


def _config(sweep: SweepConfig, variant: str, overrides: Overrides, seed: int) -> Config:
    run = f"run.name={sweep.name}-{variant}-s{seed}"
    return load_config(sweep.base, [*sweep.overrides, *overrides, f"train.seed={seed}", run])


def _combinations(grid: Mapping[str, Sequence[Value]]) -> dict[str, Overrides]:
    """Each combination of values, by a name such as `ratio-0.9`, which is also one of a run."""
    named: dict[str, Overrides] = {}
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        name = "-".join(f"{key.rpartition('.')[2]}-{value}" for key, value in chosen.items())
        named[re.sub(r"[^A-Za-z0-9._-]", "_", name)] = tuple(f"{k}={json.dumps(v)}" for k, v in chosen.items())
    return named


def _read(source: str) -> dict[str, Any]:
    ready = _ready() / f"{source}.yaml"
    try:
        text = ready.read_text("utf-8") if ready.is_file() else Path(source).read_text("utf-8")
        tree = yaml.safe_load(text)
    except OSError as error:
        known = ", ".join(sweep_names())
        raise UsageError(f"{source} is no ready sweep ({known}), and no file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{source} is no YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UsageError(f"{source} is no mapping of name, base, variants or grid, seeds")
    return tree


def _ready() -> Any:
    return resources.files("pipeline") / "sweeps"
