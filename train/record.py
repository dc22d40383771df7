"""What a training run tells MLflow beside its metrics: its machines, its data and its checkpoints."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pipeline.checkpoints import list_checkpoints
from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.storage import Store
from pipeline.tracking import SystemMetrics, Tracker, flatten, open_tracker
from train.world import World


@contextmanager
def open_record(cfg: Config, run: Store, world: World, folder: Path) -> Iterator[Tracker | None]:
    """Watch this machine, on its first rank, until the end of the block.

    Args:
        cfg: the resolved configuration.
        run: the run's folder.
        world: this rank.
        folder: local and this rank's alone.

    Yields:
        What rank 0 tells about the run; None elsewhere.
    """
    if world.local_rank != 0:
        yield None
        return
    with ExitStack() as stack:
        tracker = stack.enter_context(open_tracker(cfg, run, folder, owner=world.leads))
        if cfg.tracking.system_seconds:
            node = f"node-{world.rank * world.nodes // world.size}" if world.nodes > 1 else ""
            stack.enter_context(SystemMetrics(tracker, cfg.tracking.system_seconds, node))
        yield tracker if world.leads else None


def record_data(tracker: Tracker, dataset: Dataset | None, mix: Sequence[Mapping[str, Any]]) -> None:
    """Tell which data the run is trained on.

    Args:
        tracker: the run's.
        dataset: None for synthetic clips.
        mix: the members of a mixed dataset (`mix_members`).
    """
    identity = dataset.identity if dataset else "synthetic"
    tracker.log_params(flatten({"dataset": identity, "mix": {str(place): each for place, each in enumerate(mix)}}))
    if dataset is None:
        return
    profile = {"train_samples": len(dataset.of_split("train")), "val_samples": len(dataset.of_split("val"))}
    members = [(each["dataset"], each["identity"], {"weight": each["weight"]}) for each in mix]
    for url, sha256, said in members or [(dataset.url, identity, profile)]:
        tracker.log_dataset(url.rsplit("/", 1)[-1], sha256, url, "training", said)


def record_checkpoints(tracker: Tracker, run: Store) -> None:
    """Link the checkpoints that there are now: the newest as a tag, all of them in the file checkpoints.json."""
    found = [
        {
            "url": f"{run.url}/checkpoints/{each.name}",
            "step": each.step,
            "samples": each.info.get("samples"),
            "bytes": sum(entry.size for entry in each.files),
        }
        for each in list_checkpoints(run)
    ]
    if found:
        tracker.set_tags({"checkpoint.newest": str(found[-1]["url"])})
        tracker.log_text("checkpoints.json", json.dumps(found, indent=1))
