"""Renames a file without ever replacing what has the new name already."""

import ctypes
import errno
import os
import sys

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS}


def rename_new(path: str, target: str) -> None:
    """Raises FileExistsError if the target exists, else what os.rename() raises.

    One atomic step where the system has it (Linux, renameat2(2)); elsewhere, and on file systems
    without it, the name is first taken by an empty file, which a kill in between leaves behind.
    """
    if sys.platform != "linux" or not _renamed_atomically(path, target):
        _rename_reserved(path, target)


def _rename_reserved(path: str, target: str) -> None:
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        os.rename(path, target)
    except OSError:
        os.unlink(target)
        raise


def _renamed_atomically(path: str, target: str) -> bool:
    """Returns false if the file system does not know how."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(path), os.fsencode(target)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), path, None, target)
