"""The HTML report of one run, or of several side by side: one file, no network, light and dark, any screen."""

import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from tqdm import tqdm

from eval.report.figures import Figure, mask_figures, reconstruction_figures, sample_figures
from eval.report.runs import RunView, training_charts, view_run
from eval.report.statistics import dataset_statistics
from pipeline.config.schema import Config
from pipeline.dataset import Dataset, load_dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import dataset_store
from pipeline.provenance import versions
from preprocess.regions import COLOURS, REGIONS

SOURCE_ROWS = 20


def write_report(cfgs: Sequence[Config], out: Path, progress: bool = True) -> Path:
    """Write the report of some runs; dataset and pictures are those of the first.

    Args:
        cfgs: one configuration a run.
        out: the HTML file; replaced whole or not at all.
        progress: show a bar.

    Returns:
        ``out``.

    Raises:
        UsageError: no run was given.
        MarlinError: the dataset is missing or damaged, or the file can't be written.
    """
    if not cfgs:
        raise UsageError("a report needs at least one run: marlin report RUN")
    with tqdm(total=6, desc="report", unit="section", disable=not progress) as bar:
        content = _gather(cfgs, bar)
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
    environment.filters |= {"duration": duration, "count": "{:,}".format, "percent": _percent}
    return environment.get_template("template.html.j2").render(content)


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _gather(cfgs: Sequence[Config], bar: "tqdm[Any]") -> dict[str, Any]:
    views = [view_run(cfg) for cfg in cfgs]
    first = views[0]
    store = dataset_store(first.cfg)
    dataset = load_dataset(store)
    bar.update()
    statistics = dataset_statistics(dataset, store)
    bar.update()
    samples = sample_figures(dataset, store)
    masks = mask_figures(first.cfg, dataset, store) if dataset.samples else []
    bar.update()
    reconstructions = _reconstructions(first, dataset)
    bar.update()
    charts = training_charts(views)
    bar.update()
    return {
        "views": views,
        "run": first,
        "dataset": dataset,
        "statistics": statistics,
        "source_rows": SOURCE_ROWS,
        "colours": {**_hex_colours(), "background": "#8a8f98"},
        "samples": samples,
        "masks": masks,
        "reconstructions": reconstructions,
        "charts": charts,
        "versions": versions(),
        "written": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _reconstructions(view: RunView, dataset: Dataset) -> list[Figure]:
    if view.checkpoint is None or not dataset.of_split("val"):
        return []
    return reconstruction_figures(view.cfg, view.store, view.checkpoint, dataset, dataset_store(view.cfg))


def _hex_colours() -> dict[str, str]:
    return {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in zip(REGIONS, COLOURS, strict=True)}


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _write(out: Path, html: str) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=out.parent, suffix=".part", delete=False) as file:
            file.write(html)
        part = Path(file.name)
        part.chmod(0o644)
        part.replace(out)
    except OSError as error:
        raise MarlinError(f"can't write the report {out}: {error.strerror}; choose another place with -o") from None
