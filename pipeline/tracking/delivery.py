"""The thread that hands events to MLflow, for as long as it takes; nobody waits for it."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import tracking_uri
from pipeline.storage import NotFound, Store
from pipeline.storage.retry import pause
from pipeline.tracking.client import one_line, unusable
from pipeline.tracking.session import FilesFailed, Session
from pipeline.tracking.spool import Spool, parse_events

FOLDER = "tracking"
"""Where in a run's folder lies what MLflow has not got."""

_PERIOD_SECONDS = 1.0
_FILE_TRIES = 10
_log = logging.getLogger(__name__)


class Delivery:
    """Empties a spool in the background.

    Args:
        spool: of this process.
        run: the run's folder.
        connect: makes a session; called again after each failure.
        uri: MLflow's, for the log.
        inherits: what earlier processes left in the run's folder is delivered first.
    """

    def __init__(self, spool: Spool, run: Store, connect: Callable[[], Session], uri: str, *, inherits: bool) -> None:
        self._spool = spool
        self._run = run
        self._connect = connect
        self._uri = uri
        self._inherits = inherits
        self._session: Session | None = None
        self._secured: set[str] = set()
        self._securing = threading.Lock()  # a segment leaves this disk and storage together
        self._failures = 0
        self._file_failures = 0
        self._closing = threading.Event()
        self._deadline = 0.0
        self.run_id: str | None = None
        """The MLflow run, None while it was not reached."""
        # A daemon: at the end of the process it may be waiting for an answer that never comes.
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def secure(self) -> int:
        """Copy what is not delivered yet into the run's folder; returns how many segments wait.

        Raises:
            MarlinError: storage does not take it.
        """
        waiting = self._spool.close_all()
        for path in waiting:
            with self._securing:
                if path.name not in self._secured and path.exists():  # else it was delivered meanwhile
                    self._run.write(f"{FOLDER}/{path.name}", path.read_bytes())
                    self._secured.add(path.name)
        return len(waiting)

    def close(self, patience: float) -> bool:
        """Try for so many seconds to deliver what is left; returns whether all is delivered. The thread ends."""
        self._deadline = time.monotonic() + patience
        self._closing.set()
        self._thread.join(patience)
        return not self._thread.is_alive() and not self._failures and not self._spool.close_all()

    def _work(self) -> None:
        while not self._given_up():
            closing = self._closing.is_set()
            if self._try() and closing:
                return
            seconds = pause(self._failures) if self._failures else _PERIOD_SECONDS
            if closing:
                time.sleep(min(seconds, _PERIOD_SECONDS))
            else:
                self._closing.wait(seconds)

    def _given_up(self) -> bool:
        return self._closing.is_set() and time.monotonic() > self._deadline

    def _try(self) -> bool:
        """Whether all that there was is delivered."""
        try:
            done = self._deliver()
        except Exception as error:  # whatever it is, training goes on, and so do the tries
            self._session = None
            self._failures += 1
            self._file_failures += isinstance(error, FilesFailed)
            if self._failures == 1:
                _log.warning("values for MLflow are kept and sent later: %s", one_line(error))
            return False
        if done and self._failures:
            _log.info("MLflow at %s has all values again", self._uri)
            self._failures = 0
        return done

    def _deliver(self) -> bool:
        if self._inherits:
            for key in left_behind(self._run):
                if key.removeprefix(f"{FOLDER}/") not in self._secured:
                    self._send(self._run.read(key))
                    self._run.delete(key)
            self._inherits = False
        while path := self._spool.oldest():
            if self._given_up():
                return False
            self._send(path.read_bytes())
            with self._securing:
                if path.name in self._secured:
                    self._run.delete(f"{FOLDER}/{path.name}")
                path.unlink()
        return True

    def _send(self, data: bytes) -> None:
        if self._session is None:
            self._session = self._connect()
            if self.run_id is None:
                _log.info("MLflow at %s, %s", self._uri, self._session.page)
            self.run_id = self._session.run_id
        # Files go elsewhere than values: an artifact store that fails for long must not hold up the values.
        self._session.apply(parse_events(data), all_files=self._file_failures < _FILE_TRIES)
        self._file_failures = 0


def left_behind(run: Store) -> list[str]:
    """Keys of the segments that MLflow has not got, oldest first."""
    return sorted(item.key for item in run.list(f"{FOLDER}/"))


def deliver_left_behind(cfg: Config, run: Store) -> int:
    """Hand MLflow now what it has not got; returns how many segments that were.

    Raises:
        MarlinError: it does not answer, or refuses.
    """
    keys = left_behind(run)
    if not keys:
        return 0
    try:
        session = Session(cfg, run, secrets.token_hex(8))
        for key in keys:
            with suppress(NotFound):  # another process was faster
                session.apply(parse_events(run.read(key)))
                run.delete(key)
    except MarlinError:
        raise
    except Exception as error:  # artifact stores and databases raise what their drivers do
        raise unusable(tracking_uri(cfg), error) from None
    return len(keys)
