"""How scores stand on the page: which one is told first, and in what form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Of the tasks that ask for no labels.
_HEADLINES = {"track-probe": "balanced_accuracy", "reconstruction": "psnr", "lipsync": "lse_d"}
_TITLES = {"auc": "AUC", "psnr": "PSNR", "lse_d": "LSE-D, lower is better"}

NETWORKS = ("expert", "judge")
"""Of lip synchronisation; results say by their hashes which they were, whatever their files are called."""

# Distances, confidences and structural similarities have no unit.
_PLAIN = ("lse_d", "lse_c", "ssim", "fid")


@dataclass(frozen=True)
class Told:
    """A score: its name in the result, its value, and its standard deviation over repeats, if there were several."""

    name: str
    value: float
    std: float | None = None


def is_labelled(result: Mapping[str, Any]) -> bool:
    """Whether a result is that of a labelled task."""
    return "question" in result


def is_lip_sync(result: Mapping[str, Any]) -> bool:
    """Whether a result is that of lip synchronisation."""
    return "encoders" in result


def judge_of(result: Mapping[str, Any]) -> str:
    """The hash of the network that measured lip synchronisation; empty for other tasks."""
    return str(result["networks"]["judge"]["sha256"]) if is_lip_sync(result) else ""


def headline_of(task: str, result: Mapping[str, Any]) -> Told:
    """The score of a result that is told first; accuracy where the truth had one kind of answer only."""
    if not is_labelled(result):
        name = _HEADLINES[task]
        return Told(name, result["metrics"][name])
    name = first_of("auc" if result["kind"] == "binary" else "accuracy", result["metrics"])
    return Told(name, result["metrics"][name], result["shares"][0]["std"].get(name))


def first_of(name: str, scores: Mapping[str, float]) -> str:
    """The score asked for where it is there, or else accuracy."""
    return name if name in scores else "accuracy"


def score_title(name: str) -> str:
    """The name of a score in words."""
    return _TITLES.get(name, name.replace("_", " "))


def score(name: str, value: float) -> str:
    """A score: areas from 0 to 1 with four digits, ratios in decibels, lip-sync scores, and shares in percent."""
    if name.endswith("auc"):
        return f"{value:.4f}"
    if name.endswith("psnr"):
        return f"{value:.2f} dB"
    if name.endswith(_PLAIN):
        return f"{value:.3f}"
    return f"{value:.2%}"


def spread(name: str, value: float) -> str:
    """A standard deviation in the unit of its score, of shares in percentage points."""
    if name.endswith("auc"):
        return f"{value:.4f}"
    if name.endswith(_PLAIN):
        return f"{value:.3f}"
    return f"{value if name.endswith('psnr') else 100 * value:.2f}"


def gap(name: str, value: float) -> str:
    """How far two scores are apart, with the unit."""
    unit = "" if name.endswith(("auc", *_PLAIN)) else " dB" if name.endswith("psnr") else " points"
    return spread(name, value) + unit


def difference(name: str, value: float) -> str:
    """How far a score is from another one, with the sign and the unit."""
    return ("+" if value >= 0 else "−") + gap(name, abs(value))
