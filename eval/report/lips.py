"""The results of lip synchronisation for the report: a row for each face encoder of each run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.evaluated import Evaluated
from eval.report.labelled import Shown
from eval.report.runs import RunView
from eval.report.shown import score

TASK = "lipsync"
ENCODERS = {
    "wav2lip": "Wav2Lip's convolutions",
    "vit": "ViT from scratch",
    "videomae": "ViT from VideoMAE",
    "marlin": "ViT from this checkpoint",
}
"""The rows of table 5 in words."""

_SCORES = ("lse_d", "lse_c", "fid", "psnr", "ssim")
_BESIDE = {"lse_d": "real_lse_d", "lse_c": "real_lse_c", "psnr": "copied_psnr", "ssim": "copied_ssim"}
_MARGINS = ("lse_d_than_other_sound", "lse_d_than_untouched")


@dataclass(frozen=True)
class LipRow:
    """A generator: its scores in text, what stands beside them for comparison, and its margins.

    ``not_measured`` says what the scores that are not there need; ``shared_people`` are seen in the training, too.
    """

    run: str
    encoder: str
    scores: Mapping[str, str]
    beside: Mapping[str, str]
    margins: Mapping[str, Shown]
    scored: str
    shared_people: int
    judge: str
    not_measured: Mapping[str, str]
    dataset: Evaluated


@dataclass(frozen=True)
class LipRows:
    """All rows, and the runs that have none."""

    rows: Sequence[LipRow]
    absent: Sequence[str]


def lip_rows(views: Sequence[RunView], datasets: Mapping[str, Evaluated]) -> LipRows:
    """Rows of some runs; `datasets` by identity."""
    rows = [
        _row(view.name, each, result, datasets[result["dataset"]])
        for view in views
        if (result := view.results.get(TASK)) is not None
        for each in result["encoders"]
    ]
    return LipRows(rows, [view.name for view in views if TASK not in view.results])


def _row(run: str, found: Mapping[str, Any], result: Mapping[str, Any], dataset: Evaluated) -> LipRow:
    metrics = found["metrics"]
    return LipRow(
        run,
        ENCODERS[found["encoder"]],
        {name: score(name, metrics[name]) for name in _SCORES if name in metrics},
        {name: score(name, metrics[other]) for name, other in _BESIDE.items() if other in metrics},
        {name: _margin(found["margins"][name]) for name in _MARGINS},
        f"{found['videos']} {result['scored']} videos of {found['people']} people",
        result["shared_people"],
        f"{result['networks']['judge']['from']}, {result['networks']['judge']['sha256'][:12]}",
        result["not_measured"],
        dataset,
    )


def _margin(told: Mapping[str, Any]) -> Shown:
    interval = told["interval"]
    ends = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    return Shown(f"{told['mean']:+.3f}", "", ends)
