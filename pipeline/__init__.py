"""The spine of the MARLIN pipeline: configuration, storage, tracking, command line and launch."""

__version__ = "0.1.0"
