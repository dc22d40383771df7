"""Temporary files of worker processes, which leave without notice: killed, out of memory, at the end of their cluster.

Each process has a folder of its own that it holds a lock on; the kernel lets go of the lock with the process, whatever
ends it, and whoever comes next on that machine removes folders that nobody holds.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "marlin-worker-"


def enter_scratch() -> Path:
    """Puts all further temporary files of this process into a folder that outlives it by little; gives the folder."""
    sweep_scratch()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Until the lock is held, another process that starts may sweep the folder: then a new one is made.
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # held until the process ends: never closed
        if folder.exists():
            tempfile.tempdir = str(folder)
            return folder
        os.close(descriptor)


def sweep_scratch() -> None:
    """Removes the folders of processes of this user that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # removed meanwhile, or another user's
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # in use
        finally:
            os.close(descriptor)
