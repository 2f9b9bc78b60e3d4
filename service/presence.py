"""Shows other processes that a daemon watches a folder: it holds a lock on the folder itself.

A file would need space on a full disk, and would stay behind after a kill; the kernel releases a lock.
"""

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct


class Presence:
    """The lock of this process on the folder that it watches; several daemons may hold it."""

    def __init__(self, folder: str) -> None:
        """Locks nothing."""
        self._folder = folder
        self._fd = -1

    def hold(self) -> None:
        """Takes the lock if it is not held, or if the folder was replaced; does without if it can't."""
        with suppress(OSError):
            if self._fd >= 0 and not _is_at(self._folder, self._fd):
                self.release()
            if self._fd < 0:
                fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    os.close(fd)
                    raise
                self._fd = fd

    def release(self) -> None:
        """Gives the lock back, and the file system of the folder, which may be unmounted then."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Watched(Struct, frozen=True):
    """The daemons of a folder or a bucket: if there is one (None: nobody can know), since when, and which."""

    is_running: bool | None
    since: datetime | None = None
    processes: list[int] = []

    @classmethod
    def of_bucket(cls, starts: Sequence[datetime | None] | None) -> "Watched":
        """Takes since when each daemon of a bucket is there; they may be on other machines."""
        if starts is None:
            return cls(None)
        return cls(bool(starts), min((start for start in starts if start), default=None))


def watched(folder: str) -> Watched:
    """Looks for daemons that watch the folder; raises OSError if it can't be opened."""
    with _opened(folder) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            starts = {pid: _start(pid) for pid in _holders(os.fstat(fd).st_ino)}
            known = [start for start in starts.values() if start]
            return Watched(True, min(known, default=None), sorted(starts))
        except OSError:  # a network file system without locks of folders
            return Watched(None)
        return Watched(False)


def count_workers(daemons: Iterable[int]) -> int | None:
    """Returns how many worker processes the daemons have; None if the system does not say."""
    try:
        return sum(_is_worker(child) for pid in daemons for child in _children(pid))
    except (OSError, ValueError):
        return None


def _children(pid: int) -> set[int]:
    # Of each thread: a child belongs to the thread that has started it.
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return {int(child) for text in lists for child in text.split()}


def _is_worker(pid: int) -> bool:
    with suppress(OSError):  # it has ended meanwhile
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _holders(inode: int) -> set[int]:
    """Returns the processes that Linux names as holders of a lock on the inode."""
    # The device is not compared: some file systems give stat() another number than the kernel uses here.
    holders = set()
    with suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
                holders.add(int(words[4]))
    return holders


def _start(pid: int) -> datetime | None:
    """Returns when a process started; None if the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        # The name of the program, in brackets, may hold blanks.
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return datetime.now(UTC) - timedelta(seconds=age)
    return None
