"""What is to be said to MLflow, on local disk until it has been: JSON lines in numbered segments."""

import json
import logging
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]
"""A JSON object; its `kind` says what the other keys mean (`pipeline.tracking.session`)."""

_log = logging.getLogger(__name__)


class Spool:
    """Events of one process in the order in which they were added. Safe to use from several threads.

    A segment is written to until it is asked for; then it is closed, and the next event begins another. Segments
    are named by the time at which the process began, so that sorting the names of several processes sorts them by age.

    Args:
        folder: made if need be; this process's alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun = f"{int(time.time()):012d}-{secrets.token_hex(4)}"
        self._number = 0
        self._lock = threading.Lock()
        self._warned = False
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, event: Event) -> None:
        """Append an event. Where the disk takes no more, the event is lost with a warning: training goes on."""
        line = json.dumps(event) + "\n"
        with self._lock:
            try:
                with self._open_segment().open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as error:
                if not self._warned:
                    _log.warning("values for MLflow are lost: %s: %s", self._folder, error.strerror)
                self._warned = True
                self._number += 1  # nothing is appended to half a line

    def oldest(self) -> Path | None:
        """The oldest segment. The open one is closed only when it is the last, so that few files pile up."""
        with self._lock:
            found = self._segments()
            if found and found[0] == self._open_segment():
                self._number += 1
            return found[0] if found else None

    def close_all(self) -> list[Path]:
        """Close the open segment; all that are there, oldest first."""
        with self._lock:
            found = self._segments()
            if self._open_segment() in found:
                self._number += 1
            return found

    def _segments(self) -> list[Path]:
        return sorted(self._folder.iterdir()) if self._folder.exists() else []

    def _open_segment(self) -> Path:
        return self._folder / f"{self._begun}-{self._number:06d}.jsonl"


def parse_events(data: bytes) -> Sequence[Event]:
    """The events of a segment; a line that a full disk cut short is left out."""
    events = []
    for line in data.splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            _log.warning("a value for MLflow is lost: the disk was full when it was kept")
    return events
