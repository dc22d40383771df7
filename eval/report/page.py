"""The HTML report of one run, or of several side by side: one file, no network, light and dark, any screen."""

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from tqdm import tqdm

from eval.report.comparison import MOST_KEYS, compare
from eval.report.evaluated import evaluated_datasets
from eval.report.figures import mask_figures, sample_figures
from eval.report.labelled import labelled_view
from eval.report.lips import lip_rows
from eval.report.model_figures import ModelFigures, model_figures
from eval.report.published import ARCHIVE, LIP_SYNC, PAPER
from eval.report.runs import RunView, training_charts, view_runs
from eval.report.shown import score, score_title
from eval.report.statistics import dataset_statistics
from eval.sweep import ScoreTable
from pipeline.config.schema import Config
from pipeline.dataset import Dataset, load_dataset
from pipeline.errors import UsageError
from pipeline.layout import dataset_store
from pipeline.provenance import versions
from pipeline.storage.atomic import os_error, whole_file
from preprocess.regions import COLOURS, REGIONS

SOURCE_ROWS = 20


def write_report(cfgs: Sequence[Config], out: Path, progress: bool = True, *, sweep: Sequence[ScoreTable] = ()) -> Path:
    """Write the report of some runs; dataset and pictures are those of the first.

    Args:
        cfgs: one configuration a run.
        out: the HTML file; replaced whole or not at all.
        progress: show a bar.
        sweep: what a sweep found, if the runs are one.

    Returns:
        ``out``.

    Raises:
        UsageError: no run was given.
        MarlinError: the dataset is missing or damaged, or the file can't be written.
    """
    if not cfgs:
        raise UsageError("a report needs at least one run: give its folder, or its configuration with -c")
    with tqdm(total=6, desc="report", unit="section", disable=not progress) as bar:
        content = {**_gather(cfgs, bar), "sweep": sweep}
        html = render(content)
        bar.update()
    _write(out, html)
    return out


def render(content: dict[str, Any]) -> str:
    """Fill in the template; everything but our own drawings is escaped."""
    environment = Environment(
        loader=PackageLoader("eval.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "count": "{:,}".format, "percent": _percent, "score": score}
    environment.filters |= {"score_title": score_title, "four": _four, "signed": _signed}
    return environment.get_template("template.html.j2").render(content)


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _gather(cfgs: Sequence[Config], bar: "tqdm[Any]") -> dict[str, Any]:
    views = view_runs(cfgs)
    first = views[0]
    store = dataset_store(first.cfg)
    dataset = load_dataset(store)
    bar.update()
    statistics = dataset_statistics(dataset, store)
    bar.update()
    samples = sample_figures(dataset, store)
    masks = mask_figures(first.cfg, dataset, store) if dataset.samples else []
    bar.update()
    asked = _model_figures(first, dataset)
    bar.update()
    charts = training_charts(views)
    bar.update()
    evaluated = evaluated_datasets(views)
    return {
        "views": views,
        "run": first,
        "dataset": dataset,
        "statistics": statistics,
        "source_rows": SOURCE_ROWS,
        "colours": {**_hex_colours(), "background": "#8a8f98"},
        "samples": samples,
        "masks": masks,
        "asked": asked,
        "charts": charts,
        "evaluated": evaluated.values(),
        "labelled": labelled_view(views, evaluated),
        "compared": compare(views),
        "most_keys": MOST_KEYS,
        "paper": PAPER,
        "archive": ARCHIVE,
        "lip_sync": LIP_SYNC,
        "lip_rows": lip_rows(views, evaluated),
        "versions": versions(),
        "written": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _model_figures(view: RunView, dataset: Dataset) -> ModelFigures:
    if view.checkpoint is None or not dataset.of_split("val"):
        return ModelFigures()
    return model_figures(view.cfg, view.store, view.checkpoint, dataset, dataset_store(view.cfg), results=view.results)


def _hex_colours() -> dict[str, str]:
    return {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in zip(REGIONS, COLOURS, strict=True)}


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _four(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"


def _write(out: Path, html: str) -> None:
    try:
        with whole_file(out) as file:
            file.write(html.encode())
    except OSError as error:
        raise os_error(out, error) from None
