"""Finds out whether a program has a file open for writing, as far as the system knows."""

import ctypes
import errno
import fcntl
import os
import sys
from contextlib import suppress
from enum import Enum


class Writers(Enum):
    """Answers of the system to the question whether a file has writers."""

    NONE = "none"
    SOME = "some"
    UNKNOWN = "unknown"


#: File systems that answer for this machine alone, or refuse a lease though nobody writes, by f_type
#: (statfs(2)).
REMOTE = {
    0x00006969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x0000517B: "smb",
    0x65735546: "fuse",
    0x01021997: "9p",
    0x00C36400: "ceph",
    0x5346414F: "afs",
    0x6B414653: "kafs",
    0x73757245: "coda",
    0x0BD00BD0: "lustre",
    0x01161970: "gfs2",
    0x7461636F: "ocfs2",
    0x47504653: "gpfs",
    0x786F4256: "vboxsf",
    0xBACBACBC: "vmhgfs",
}


class _Statfs(ctypes.Structure):
    """The struct of statfs(2); only its first field is read, on most machines its lower half."""

    _fields_ = (("f_type", ctypes.c_uint32), ("rest", ctypes.c_byte * 508))


_fstatfs = ctypes.CDLL(None, use_errno=True).fstatfs
_fstatfs.argtypes = (ctypes.c_int, ctypes.POINTER(_Statfs))


#: Of another user's file (EACCES), and where there are no leases.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


def writers(fd: int) -> tuple[Writers, str]:
    """Asks for a read lease, refused while any process has the file open for writing (fcntl(2), F_SETLEASE).

    Unknown, with the reason, where the system has no leases, and to who is neither the file's owner nor root.
    Raises OSError if the file system fails.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return Writers.UNKNOWN, "this system has no leases"
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno in _REFUSALS:
            return Writers.UNKNOWN, os.strerror(error.errno)
        if error.errno in (errno.EAGAIN, errno.EBUSY):
            return Writers.SOME, ""
        raise
    with suppress(OSError):  # then it is given up when the file is closed
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Writers.NONE, ""


def is_remote(fd: int) -> bool:
    """Returns whether the file is where a lease says nothing of writers; os.fstatvfs() has no f_type.

    Raises OSError if the file system fails.
    """
    if sys.platform != "linux":
        return False
    status = _Statfs()
    if _fstatfs(fd, status) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return status.f_type in REMOTE
