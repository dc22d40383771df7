"""The file system of a path, from the text of a table of mounts."""

from pathlib import PurePosixPath

import pytest

from pipeline.mounts import filesystem_of, is_shared

_MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:40 / /home rw shared:2 master:1 - nfs4 server:/home rw,vers=4.2
41 40 8:2 / /home/local rw - xfs /dev/sdb1 rw
42 22 0:42 / /my\040data rw - lustre mgs@tcp:/x rw
43 22 8:3 / /twice rw - cifs //a/b rw
44 22 8:4 / /twice rw - ext4 /dev/sdc rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/m.db", "ext4"),
        ("/home/anna/m.db", "nfs4"),
        ("/homes/m.db", "ext4"),
        ("/home/local/m.db", "xfs"),
        ("/my data/m.db", "lustre"),
        ("/twice/m.db", "ext4"),
    ],
)
def test_the_deepest_and_last_mount_counts(path: str, kind: str) -> None:
    assert filesystem_of(PurePosixPath(path), _MOUNTS) == kind


def test_file_systems_of_a_network_are_shared() -> None:
    assert all(is_shared(kind) for kind in ("nfs", "gpfs", "smb3", "beegfs", "ceph", "fuse.sshfs"))
    assert not any(is_shared(kind) for kind in ("ext4", "xfs", "overlay", "tmpfs", ""))
