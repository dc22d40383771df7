"""What is compared, on what, and how: a frozen protocol, read from a file beside this one."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from pipeline.config.load import override, validate
from pipeline.config.schema import Config
from pipeline.config.section import Name, NonNegativeInt, PositiveInt, Section
from pipeline.errors import UsageError
from pipeline.storage.manifest import to_json
from preprocess.drawing import VERSION

BASELINES = ("random", "pixels", "statistics")
"""What is measured without training: an encoder with fresh weights, and features that no network makes."""

QUESTIONS = ("appearance", "action", "emotion", "deepfake")
"""What is asked of held-out people."""

MEASURED = 1
"""Raised whenever the same protocol measures something else."""

PRESETS = ("small", "full", "check")

StageName = Literal["tune", "report", "tokens"]
ProbeName = Literal["linear", "places", "knn", "attentive"]

# Of every preset. Pictures are the faces; there is no MLflow; one checkpoint, at the end.
_COMMON: Mapping[str, Mapping[str, Any]] = {
    "preprocess": {
        "detector": "none",
        "parser": "given",
        "near_duplicates": False,
        "label_maps": False,
        "audio": False,
        "unit_sources": 16,
    },
    "data": {"decoder": "opencv", "threads": 1, "streams": 1},
    "train": {"launcher": "none", "zero_stage": 0, "checkpoint_every": 1_000_000, "val_clips": 0, "log_every": 10},
    "eval": {"bootstrap": 0, "finetune": {"processes": 1, "threads": 1}},
    "tracking": {"uri": "none", "system_seconds": 0},
}


class Corpus(Section):
    """A drawn corpus: `marlin samples draw KIND --videos VIDEOS --seed SEED --frames FRAMES --zoom ZOOM`."""

    kind: Literal["celebv-hq", "mosei", "ffpp"]
    videos: PositiveInt
    seed: NonNegativeInt
    frames: PositiveInt = 32
    zoom: float = 1.5


class Stage(Section):
    """What is measured: labelled corpora by the key of `eval.datasets`, seeds of all, ways to learn.

    A stage can measure what another one has `trained`, and adds to its results then.
    """

    labelled: Mapping[Literal["attributes", "emotion", "deepfake"], Name]
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    probes: tuple[ProbeName, ...] = ("linear", "places", "knn", "attentive")
    trained: StageName | None = None


class Table(Section):
    """Variants that are set beside each other, how many seeds of each, and which of them all are compared with."""

    seeds: PositiveInt
    variants: Annotated[tuple[Name, ...], Field(min_length=2)]
    against: Annotated[tuple[Name, ...], Field(min_length=1)]


class Search(Section):
    """What is tried to choose hyperparameters: `section.key=value` of each setting, scored on some variants."""

    settings: Mapping[Name, tuple[str, ...]]
    variants: Annotated[tuple[Name, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Job:
    """One variant with one seed, and the setting that is tried, or the chosen one."""

    stage: StageName
    variant: str
    seed: int
    setting: str = ""

    @property
    def name(self) -> str:
        """Of its run and of its result."""
        return "-".join(part for part in (self.stage, self.setting, self.variant, f"s{self.seed}") if part)

    @property
    def trained(self) -> bool:
        """Whether there is something to train."""
        return self.variant not in BASELINES


class Protocol(Section):
    """A protocol.

    Attributes:
        name: of the preset.
        corpora: what is drawn, by name. No person of one is in another: seeds differ.
        pretraining: corpora that are trained on, without their labels.
        stages: hyperparameters are chosen in "tune", results are of "report".
        search: what is tried in stage "tune".
        chosen: the setting of the search that all else is run with; empty: none of them.
        variants: `section.key=value` of each, by its name; `BASELINES` need none.
        tables: what is set beside what.
        config: sections of the configuration that all variants share.
    """

    name: Name
    corpora: Mapping[Name, Corpus]
    pretraining: Annotated[tuple[Name, ...], Field(min_length=1)]
    stages: Mapping[StageName, Stage]
    search: Search | None = None
    chosen: str = ""
    variants: Mapping[Name, tuple[str, ...]]
    tables: Mapping[Name, Table]
    config: Mapping[str, Any]

    @model_validator(mode="after")
    def _consistent(self) -> "Protocol":
        named = {*self.pretraining, *(name for stage in self.stages.values() for name in stage.labelled.values())}
        if missing := sorted(named - self.corpora.keys()):
            raise ValueError(f"corpus {missing[0]} is not among corpora")
        asked = {variant for table in self.tables.values() for variant in (*table.variants, *table.against)}
        asked |= set(self.search.variants if self.search else ())
        if missing := sorted(asked - self.variants.keys() - set(BASELINES)):
            raise ValueError(f"variant {missing[0]} is not among variants")
        if self.chosen and self.chosen not in (self.search.settings if self.search else ()):
            raise ValueError(f"setting {self.chosen} is not among search.settings")
        drawn = [(corpus.kind, corpus.seed) for corpus in self.corpora.values()]
        if len(set(drawn)) < len(drawn):
            raise ValueError("two corpora of one kind have the same seed, and so the same people")
        seeds = [seed for stage in self.stages.values() if not stage.trained for seed in stage.seeds]
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is there twice: tuning must not have seen what is reported")
        return self

    def jobs(self, stage: StageName) -> list[Job]:
        """Everything to be measured, table by table and seed by seed, so that comparisons are whole early.

        Tuning tries every setting of the search, where there is one.

        Raises:
            UsageError: there is no such stage.
        """
        if stage not in self.stages:
            raise UsageError(f"protocol {self.name} has no stage '{stage}': it has {', '.join(self.stages)}")
        seeds = self.stages[stage].seeds
        if stage == "tune" and self.search:
            tried = [
                Job(stage, v, seed, name)
                for seed in seeds
                for name in self.search.settings
                for v in self.search.variants
            ]
            return [*tried, *(Job(stage, variant, seed) for seed in seeds for variant in BASELINES)]
        asked = [
            Job(stage, variant, seed)
            for table in self.tables.values()
            for seed in seeds[: table.seeds]
            for variant in table.variants
        ]
        return list(dict.fromkeys(asked))

    def config_of(self, job: Job, root: Path, threads: int = 1) -> Config:
        """The configuration of a job, with datasets and run below a folder."""
        places = {name: str(root / "datasets" / name) for name in self.corpora}
        base = validate(self._tree(), f"protocol {self.name}")
        mix = [{"dataset": places[name], "weight": 1} for name in self.pretraining]
        labelled = {question: places[name] for question, name in self.stages[job.stage].labelled.items()}
        here = base.model_copy(
            update={
                "run": base.run.model_copy(update={"name": self.run_of(job)}),
                "storage": base.storage.model_copy(update={"root": str(root)}),
                "launch": base.launch.model_copy(update={"threads": threads}),
            }
        )
        seeds = f"train.seed={job.seed}", f"eval.seed={job.seed}"
        data = f"data.mix={to_json(mix).decode()}", f"eval.datasets={to_json(labelled).decode()}"
        return override(here, [*data, *self._changes(job), *seeds])

    def run_of(self, job: Job) -> str:
        """Name of the run that a job measures."""
        return replace(job, stage=self.stages[job.stage].trained or job.stage).name

    def corpus_config(self, name: str, root: Path) -> Config:
        """The configuration that makes a dataset of a drawn corpus; that of pretraining has no labels and no splits."""
        kind = "folder" if name in self.pretraining else self.corpora[name].kind
        corpus = {"kind": kind, "path": str(root / "corpora" / name), "name": name, "compression": "c40"}
        if kind == "celebv-hq":
            corpus["splits"] = "splits"
        return validate({**self._tree(), "corpus": corpus, "storage": {"root": str(root)}}, f"protocol {self.name}")

    def digest(self, job: Job) -> str:
        """Hash of what a protocol says of a job: what is drawn, and how it is trained and measured.

        Defaults that it leaves alone are those of the code's version, which a result names.
        """
        names = (*self.pretraining, *self.stages[job.stage].labelled.values())
        content = {
            "measured": MEASURED,
            "drawing": VERSION,
            "corpora": {name: self.corpora[name].model_dump(mode="json") for name in names},
            "stage": self.stages[job.stage].model_dump(mode="json"),
            "config": self._tree(),
            "changes": self._changes(job),
            "seed": job.seed,
        }
        return hashlib.sha256(to_json(content)).hexdigest()

    def _changes(self, job: Job) -> list[str]:
        """Overrides of the setting and of the variant."""
        setting = job.setting or self.chosen
        tried = self.search.settings[setting] if self.search and setting else ()
        return [*tried, *self.variants.get(job.variant, ())]

    def _tree(self) -> dict[str, Any]:
        tree = {name: dict(section) for name, section in self.config.items()}
        for name, section in _COMMON.items():
            tree[name] = {**section, **tree.get(name, {})}
        return tree


def load_protocol(source: str) -> Protocol:
    """A preset by name, or a protocol from a YAML file. What it says stands in place of what its `base` says there.

    Raises:
        UsageError: there is none, or it says what it can't.
    """
    try:
        return Protocol.model_validate(_read(source))
    except OSError as error:
        raise UsageError(f"{source} is no preset ({', '.join(PRESETS)}), and no file: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{source} is no YAML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{source}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _read(source: str) -> Any:
    path = Path(__file__).parent / f"{source}.yaml" if source in PRESETS else Path(source)
    own = yaml.safe_load(path.read_text("utf-8"))
    if not isinstance(own, dict) or "base" not in own:
        return own
    base = _read(str(own.pop("base")))
    sections = [key for key, value in own.items() if isinstance(value, dict) and isinstance(base.get(key), dict)]
    return {**base, **own, **{key: {**base[key], **own[key]} for key in sections}}
