"""One connection to MLflow: events become values, parameters, images and links of the run, each once."""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.storage import Store
from pipeline.tracking.client import connect, one_line
from pipeline.tracking.images import Images
from pipeline.tracking.runs import find_or_start
from pipeline.tracking.spool import Event

if TYPE_CHECKING:
    from mlflow import MlflowException

_MAX_PARAM = 500  # some servers refuse longer ones
_MAX_BATCH = {"metrics": 1000, "params": 100, "tags": 100}  # of one request
_MAX_DIGEST = 36
_FILES = ("image", "text")
# What an MLflow server says of what it will never take, or is too old for.
_REFUSED = (
    *("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"),
    *("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"),
)
_STATUS_TIME = "marlin.status_time"
_CHANGED = "changed."
_log = logging.getLogger(__name__)


class FilesFailed(MarlinError):
    """MLflow answers, but its artifact store does not take a file."""


class Session:
    """Hands events to the MLflow run of a run's folder, which is made if there is none.

    What MLflow already has is not sent again: a process that was killed, or an answer that was lost, leaves it open
    how far the process before came. The first value of a step stays; a parameter stays, and while it is another one
    the tag `changed.<name>` says so.

    Args:
        cfg: the resolved configuration.
        run: the run's folder.
        token: of this process (`runs.find_or_start`).

    Raises:
        MarlinError: MLflow does not answer, or refuses, or has no run as the folder names it.
    """

    def __init__(self, cfg: Config, run: Store, token: str) -> None:
        self._client = connect(cfg)
        found = find_or_start(self._client, cfg, run, token)
        self.run_id = str(found.info.run_id)
        self.page = f"experiments/{found.info.experiment_id}/runs/{self.run_id}"
        self._params = dict(found.data.params)
        self._tags = dict(found.data.tags)
        self._newest = {metric.key: metric.step for metric in found.data._metric_objs}  # the public view has no steps
        self._steps: dict[str, set[int]] = {}  # of those metrics that were asked for
        self._unsent: dict[str, set[int]] = defaultdict(set)
        self._images = Images(self._client, self.run_id)
        self._handlers: dict[str, Callable[[Event], None]] = {
            "image": self._images.send,
            "text": self._text,
            "dataset": self._dataset,
            "status": self._status,
        }

    def apply(self, events: Sequence[Event], *, all_files: bool = True) -> None:
        """Send events. May be repeated with the same ones, by another session, when it failed.

        Args:
            events: in the order in which they were told.
            all_files: a file that the artifact store does not take is an error; else it is left out with a warning.

        Raises:
            FilesFailed: only the artifact store fails.
        """
        kinds = defaultdict(list)
        for event in events:
            kinds[event["kind"]].append(event)
        for event in kinds.pop("params", []):
            self._set_params(event["values"])
        self._log_metrics(kinds.pop("metrics", []))
        self._set_tags({name: value for event in kinds.pop("tags", []) for name, value in event["values"].items()})
        for kind, of_kind in kinds.items():
            send = self._handlers[kind]
            if kind in _FILES:
                send = partial(self._send_file, send, all_files)
            for event in of_kind:
                self._unless_refused(kind, send, event)

    def _log_metrics(self, events: Sequence[Event]) -> None:
        from mlflow.entities import Metric

        new = [
            Metric(name, value, event["time"], event["step"])
            for event in events
            for name, value in event["values"].items()
            if self._is_new(name, event["step"])
        ]
        self._log_batch("metrics", new)
        self._unsent.clear()

    def _is_new(self, name: str, step: int) -> bool:
        """Whether a metric has no value of a step yet; from now on it has."""
        if step <= self._newest.get(name, -1):
            if name not in self._steps:
                history = self._client.get_metric_history(self.run_id, name)
                self._steps[name] = {metric.step for metric in history} | self._unsent[name]
            if step in self._steps[name]:
                return False
        self._newest[name] = max(step, self._newest.get(name, -1))
        self._unsent[name].add(step)
        if name in self._steps:
            self._steps[name].add(step)
        return True

    def _set_params(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        wanted = {name: value[:_MAX_PARAM] for name, value in values.items()}
        new = {name: value for name, value in wanted.items() if name not in self._params}
        self._log_batch("params", [Param(name, value) for name, value in new.items()])
        self._params |= new
        self._set_tags({_CHANGED + name: value for name, value in wanted.items() if value != self._params[name]})
        for name, value in wanted.items():
            if value == self._params[name] and self._tags.pop(_CHANGED + name, None) is not None:
                self._client.delete_tag(self.run_id, _CHANGED + name)

    def _set_tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._log_batch("tags", [RunTag(name, value) for name, value in values.items()])
        self._tags |= values

    def _log_batch(self, kind: str, items: Sequence[Any]) -> None:
        for first in range(0, len(items), _MAX_BATCH[kind]):
            self._log_some(kind, items[first : first + _MAX_BATCH[kind]])

    def _log_some(self, kind: str, items: Sequence[Any]) -> None:
        """One request; where it is refused, its halves, so that only what is at fault is left out."""
        from mlflow import MlflowException

        arguments: dict[str, Any] = {kind: items}
        try:
            self._client.log_batch(self.run_id, **arguments)
        except MlflowException as error:
            self._raise_unless_refused(error)
            if len(items) == 1:
                _log.warning("MLflow refuses %s: %s", items[0].key, one_line(error))
                return
            middle = len(items) // 2
            self._log_some(kind, items[:middle])
            self._log_some(kind, items[middle:])

    def _text(self, event: Event) -> None:
        self._client.log_text(self.run_id, event["text"], event["path"])

    def _dataset(self, event: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            event["name"],
            event["identity"][:_MAX_DIGEST],
            source_type="marlin",
            source=json.dumps({"url": event["url"]}),
            profile=json.dumps({"identity": event["identity"], **event["profile"]}),
        )
        tags = [InputTag("mlflow.data.context", event["context"])]
        self._client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, tags)])

    def _status(self, event: Event) -> None:
        """The newest word counts, in whatever order they come."""
        if event["time"] < int(self._tags.get(_STATUS_TIME, 0)):
            return
        if event["status"] == "RUNNING":
            self._client.update_run(self.run_id, status="RUNNING")
        else:
            self._client.set_terminated(self.run_id, event["status"], end_time=event["time"])
        self._set_tags({_STATUS_TIME: str(event["time"])})

    def _send_file(self, send: Callable[[Event], None], all_files: bool, event: Event) -> None:
        try:
            send(event)
        except Exception as error:
            self._check_active()  # else it is MLflow that is down, and everything waits
            text = f"MLflow's artifact store does not take {event['kind']}: {one_line(error)}"
            if all_files:
                raise FilesFailed(text) from None
            _log.warning("%s", text)

    def _unless_refused(self, what: str, send: Callable[[Event], None], event: Event) -> None:
        """What MLflow will never take is left out with a warning: it must not hold up the rest."""
        from mlflow import MlflowException

        try:
            send(event)
        except MlflowException as error:
            self._raise_unless_refused(error)
            _log.warning("MLflow refuses %s: %s", what, one_line(error))

    def _raise_unless_refused(self, error: "MlflowException") -> None:
        if error.error_code not in _REFUSED:
            raise error
        self._check_active()  # of a run that was deleted everything is refused

    def _check_active(self) -> None:
        if self._client.get_run(self.run_id).info.lifecycle_stage != "active":
            raise MarlinError(f"MLflow's run {self.run_id} was deleted: restore it")
