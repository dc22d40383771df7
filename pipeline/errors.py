"""Errors a user can act on; the CLI prints them as one line and maps them to its exit status."""


class MarlinError(Exception):
    """Failed because of data, environment or network: exit status 1.

    The message names the file, key or object at fault and says what to do about it.
    """

    exit_status = 1


class UsageError(MarlinError):
    """Wrong usage or configuration: exit status 2."""

    exit_status = 2


class StoppedEarly(MarlinError):
    """Stopped on request with its state saved: exit status 75, the next start continues."""

    exit_status = 75
