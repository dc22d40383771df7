"""Logging: one line an event, for people by default, JSON on request."""

import json
import logging
import os
import sys

_QUIET = (
    "deepspeed",
    "DeepSpeed",
    "mlflow",
    "alembic",
    "botocore",
    "boto3",
    "s3transfer",
    "urllib3",
    "ray",
    "matplotlib",
)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line |= fields
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def setup_logging(*, json_lines: bool | None = None, verbose: bool | None = None) -> None:
    """Send log lines to standard error.

    Args:
        json_lines: one JSON object a line; None reads MARLIN_LOG=json, which child processes inherit.
        verbose: debug lines of ours and notices of the libraries too; None reads MARLIN_VERBOSE.
    """
    as_json = os.environ.get("MARLIN_LOG") == "json" if json_lines is None else json_lines
    loud = bool(os.environ.get("MARLIN_VERBOSE")) if verbose is None else verbose
    if as_json:
        os.environ["MARLIN_LOG"] = "json"
    if loud:
        os.environ["MARLIN_VERBOSE"] = "1"
    if not loud:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if as_json else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.DEBUG if loud else logging.INFO, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.INFO if loud else logging.WARNING)
    if not loud:
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings of retries; the outcome is told once
