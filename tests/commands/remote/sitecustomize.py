"""Python loads this at its start where PYTHONPATH names this folder: then all files are on a network.

A lease is refused with EAGAIN though nobody writes, as Linux does it on NFS without a delegation and on CIFS
without an oplock.
"""

import errno
import fcntl
import os
from typing import Any

from sources import lease


class _EveryType:
    def __contains__(self, kind: int) -> bool:
        return True


def _without_leases(fd: int, command: int, *arguments: Any) -> Any:
    if command == fcntl.F_SETLEASE:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return _fcntl(fd, command, *arguments)


_fcntl = fcntl.fcntl
fcntl.fcntl = _without_leases  # type: ignore[assignment]
lease.REMOTE = _EveryType()  # type: ignore[assignment]
