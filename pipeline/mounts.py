"""Which file system a path lies on, from Linux's table of mounts."""

import re
from pathlib import Path, PurePosixPath

MOUNTINFO = Path("/proc/self/mountinfo")
_SHARED = {
    *("nfs", "nfs4", "lustre", "gpfs", "cifs", "smb3", "beegfs", "ceph", "9p", "virtiofs"),
    *("wekafs", "panfs", "pvfs2", "gfs2", "ocfs2", "afs"),
}


def filesystem_of(path: PurePosixPath, mountinfo: str) -> str:
    """Type of the file system that an absolute path lies on, "" where no mount holds it.

    Args:
        path: without symbolic links.
        mountinfo: text of ``/proc/self/mountinfo``, see proc(5).
    """
    found, depth = "", 0
    for line in mountinfo.splitlines():
        mount, separator, source = line.partition(" - ")
        if not separator:
            continue
        point = PurePosixPath(_unescaped(mount.split()[4]))
        # Of mounts at one place, the last one hides the others.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = source.split()[0], len(point.parts)
    return found


def is_shared(filesystem: str) -> bool:
    """Whether other machines may write to a file system of this type."""
    return filesystem in _SHARED or filesystem.startswith("fuse.")


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text)
