"""All tasks by the names that `eval.tasks` knows them by."""

from collections.abc import Mapping, Sequence

from eval.questions import TOPICS
from eval.tasks import lipsync, reconstruction, track_probe
from eval.tasks.context import Task
from eval.tasks.labelled import LabelledTask
from eval.tasks.protocols import PROTOCOLS

TASKS: Mapping[str, Task] = {
    "track-probe": track_probe,
    "reconstruction": reconstruction,
    **{f"{asked}-{protocol}": LabelledTask(asked, protocol) for asked in TOPICS for protocol in PROTOCOLS},
    "lipsync": lipsync,
}


def task_groups(names: Sequence[str]) -> list[list[str]]:
    """Tasks that one job does together: those that share features; what learns from clips for hours is by itself."""
    alone = [name for name in names if name.endswith(("-finetune", "-attentive", "lipsync"))]
    together = [name for name in names if name not in alone]
    return [*([together] if together else []), *([name] for name in alone)]
