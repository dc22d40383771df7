"""One MLflow run for the whole life of a run, however often its jobs are restarted, whether MLflow answers or not."""

import base64
import hashlib
import io
import logging
import secrets
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pipeline.config.load import dump_config
from pipeline.config.schema import Config
from pipeline.errors import MarlinError, StoppedEarly
from pipeline.provenance import versions
from pipeline.storage import Store, Unavailable
from pipeline.tracking.client import NO_TRACKING, usable_uri
from pipeline.tracking.delivery import FOLDER, Delivery
from pipeline.tracking.runs import known_run_id
from pipeline.tracking.session import Session
from pipeline.tracking.spool import Spool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LAST_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Tracker:
    """Takes what MLflow is to know. Every method returns at once; a thread delivers. Use as a context manager.

    What MLflow has not taken ten seconds after the end goes to `<run>/tracking/`; the next start of
    the run, or `marlin track`, delivers it.
    """

    def __init__(self, cfg: Config, run: Store, folder: Path, *, owner: bool) -> None:
        self.uri = usable_uri(cfg)
        self._run = run
        self._owner = owner
        self._outcome = "FINISHED"
        self._spool = Spool(folder)
        self._known_run = known_run_id(run)
        connect = partial(Session, cfg, run, secrets.token_hex(8))
        self._delivery = Delivery(self._spool, run, connect, self.uri, inherits=owner)
        if owner:
            self._add("status", status="RUNNING")

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owner:
            failed = "SCHEDULED" if isinstance(error, StoppedEarly) else "FAILED"
            self._add("status", status=failed if error else self._outcome)
        if self._delivery.close(_LAST_SECONDS):
            return
        try:
            if self._delivery.secure():
                _log.warning(
                    "MLflow at %s has not got everything: the rest waits in %s/%s", self.uri, self._run.url, FOLDER
                )
        except (MarlinError, OSError) as lost:
            _log.warning("MLflow at %s has not got everything, and the rest is lost: %s", self.uri, lost)

    @property
    def run_id(self) -> str | None:
        """The MLflow run, None while MLflow was never reached."""
        return self._delivery.run_id or self._known_run

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Values of one step; one that MLflow has already stays as it is."""
        self._add("metrics", step=step, values={name: float(value) for name, value in values.items()})

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Parameters; one that the run already has stays, and its new value becomes a tag `changed.<name>`."""
        self._add("params", values={name: str(value) for name, value in values.items()})

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Tags; a newer value replaces the older one."""
        self._add("tags", values=dict(values))

    def log_image(self, name: str, image: "NDArray[np.uint8]", step: int) -> None:
        """Attach an RGB image (H, W, 3) of a step; MLflow shows those of one name in a row."""
        from PIL import Image

        png = io.BytesIO()
        Image.fromarray(image).save(png, "png")
        self._add("image", name=name, step=step, png=base64.b64encode(png.getvalue()).decode())

    def log_text(self, path: str, text: str) -> None:
        """Attach a text file, over an earlier one of that path."""
        self._add("text", path=path, text=text)

    def log_dataset(self, name: str, identity: str, url: str, context: str, profile: Mapping[str, Any]) -> None:
        """A dataset that went into the run.

        Args:
            name: the dataset's.
            identity: sha256 of its dataset.json.
            url: where it lies.
            context: what it is for, such as "training".
            profile: what else is to be known, JSON values.
        """
        self._add("dataset", name=name, identity=identity, url=url, context=context, profile=dict(profile))

    def secure(self) -> None:
        """Make what was said so far outlive this process, in the run's folder if MLflow has not taken it.

        Raises:
            Unavailable: storage can't be reached now. What else goes wrong costs a warning.
        """
        try:
            self._delivery.secure()
        except Unavailable:
            raise
        except (MarlinError, OSError) as error:
            _log.warning("what MLflow has not got is not safe in the run's folder: %s", error)

    def will_continue(self) -> None:
        """The run stops for now: when this tracker ends, MLflow shows it as scheduled, not as finished."""
        self._outcome = "SCHEDULED"

    def _add(self, kind: str, **event: Any) -> None:
        self._spool.add({"kind": kind, "time": int(time.time() * 1000), **event})


class NoTracker(Tracker):
    """Takes the same, and tells nobody: `tracking.uri=none`."""

    def __init__(self) -> None:
        self.uri = NO_TRACKING

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing waits to be delivered."""

    @property
    def run_id(self) -> str | None:
        return None

    def secure(self) -> None:
        """There is nothing to be kept."""

    def will_continue(self) -> None:
        """Nobody is told."""

    def _add(self, kind: str, **event: Any) -> None:
        """Nobody is told."""


def open_tracker(cfg: Config, run: Store, folder: Path, *, owner: bool = False) -> Tracker:
    """Continue the MLflow run of a run's folder, or start one, as soon as MLflow answers.

    Args:
        cfg: the resolved configuration.
        run: the run's folder.
        folder: local and this process's alone; what is on its way lies there.
        owner: the MLflow run begins and ends with this tracker, which also tells the parameters.

    Raises:
        UsageError: `tracking.uri` can't be used: SQLite on a shared file system, or nothing that MLflow knows.
        MarlinError: the database's folder can't be made.
    """
    if cfg.tracking.uri == NO_TRACKING:
        return NoTracker()
    tracker = Tracker(cfg, run, folder, owner=owner)
    if owner:
        settings = flatten(cfg.model_dump(mode="json"))
        config = {"sha256": hashlib.sha256(dump_config(cfg).encode()).hexdigest()}
        tracker.log_params({**settings, **flatten({"versions": versions(), "config": config})})
    return tracker


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
