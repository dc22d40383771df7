"""The datasets of other corpora that tasks were measured on, as far as they still lie where the configuration says."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.runs import RunView
from eval.report.shown import is_labelled, is_lip_sync
from eval.tasks.registry import TASKS
from pipeline.dataset import parse, read_info
from pipeline.errors import MarlinError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """A dataset that results name by its identity, the sha256 of its dataset.json.

    Attributes:
        identity: of the dataset.
        name: its name; empty where it does not lie where the configuration says, and the rest then too.
        url: where it lies.
        videos: how many gave samples.
        findings: a line each for what does not fit the corpus whose layout it has, as the numbers of videos.
    """

    identity: str
    name: str = ""
    url: str = ""
    videos: int = 0
    findings: tuple[str, ...] = ()


def evaluated_datasets(views: Sequence[RunView]) -> Mapping[str, Evaluated]:
    """The datasets of all results on labelled or talking faces, by identity.

    One that was moved or replaced since is told by its identity alone: a report is about results that are there.
    """
    found: dict[str, Evaluated] = {}
    there: dict[str, Evaluated] = {}
    for view in views:
        for task, result in view.results.items():
            if not (is_labelled(result) or is_lip_sync(result)):
                continue
            identity = result["dataset"]
            if identity not in found or not found[identity].url:
                found[identity] = _look(view, task, there, identity)
    return found


def _look(view: RunView, task: str, there: dict[str, Evaluated], identity: str) -> Evaluated:
    try:
        store = TASKS[task].store(view.cfg)
        if store.url not in there:
            data = read_info(store)
            info: Mapping[str, Any] = parse(data, f"{store.url}/dataset.json")
            there[store.url] = Evaluated(
                hashlib.sha256(data).hexdigest(),
                info["name"],
                store.url,
                info["counts"]["sources"],
                tuple(info["findings"]),
            )
    except MarlinError as error:
        _log.warning("the dataset that %s of %s was measured on: %s", task, view.name, error)
        return Evaluated(identity)
    dataset = there[store.url]
    return dataset if dataset.identity == identity else Evaluated(identity)
