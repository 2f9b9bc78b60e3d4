"""Opens a local file safely, locks it and digests its bytes, all on one descriptor."""

import errno
import fcntl
import hashlib
import io
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from msgspec import Struct

from processing.errors import BadFile, Gone, NotReady
from processing.source import CHUNK_BYTES, MAX_SHARED_BYTES
from sources.lease import Writers, is_remote, writers

_OPEN_SAFELY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

#: Bytes that are read at once, and then reported as progress.
_STEP_BYTES = 256 * 1024

#: Reports progress to whoever watches for hangs.
Beat = Callable[[], None]


def no_beat() -> None:
    """Does nothing: nobody watches."""


class FileIdentity(Struct, frozen=True):
    """Proof that a name still means the same file, and that nobody has changed it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileIdentity":
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def same_content_as(self, other: "FileIdentity") -> bool:
        """Ignores ctime: a rename changes ctime and nothing else."""
        return (self.device, self.inode, self.size, self.mtime_ns) == (
            (other.device, other.inode, other.size, other.mtime_ns)
        )


class LocalFile:
    """A file that is open for reading and locked against other daemons."""

    may_grow = True
    origin = None

    def __init__(self, path: str, name: str, fd: int, identity: FileIdentity, beat: Beat = no_beat) -> None:
        self.name = name
        self.beat = beat
        self.path = path
        self.fd = fd
        self.identity = identity
        self.sha256 = b""
        self.content: bytes | None = None
        self.position = 0
        #: Why nobody can know whether it is being written: then only time shows. Empty if it is known.
        self.hides_writers = ""

    @property
    def arrived_at(self) -> float:
        """Time of its last change: that of its content, or of the rename that brought it here."""
        return self.identity.ctime_ns / 1e9

    def open_bytes(self) -> "io.BufferedReader[io.BytesIO | _Raw]":
        """Opens the bytes as dropped, from the beginning; read() raises NotReady if the disk fails."""
        raw = io.BytesIO(self.content) if self.content is not None else _Raw(self)
        return io.BufferedReader(raw, CHUNK_BYTES)

    def digest(self) -> None:
        """Sets sha256, of the bytes as dropped; keeps the content of a small file, to read it only once."""
        raw = self.open_bytes()
        if self.identity.size <= MAX_SHARED_BYTES:
            # No more than it had: what comes behind it shows in check_unchanged(), without another read.
            self.content = raw.read(self.identity.size)
            self.sha256 = hashlib.sha256(self.content).digest()
        else:
            self.sha256 = hashlib.file_digest(raw, "sha256").digest()

    def check_unchanged(self) -> None:
        """Raises NotReady if anyone has written, or may be about to."""
        self.beat()
        try:
            is_same = FileIdentity.of(os.fstat(self.fd)) == self.identity
        except OSError as error:
            raise _unreadable(error) from None
        if not is_same:
            raise NotReady("it changed while it was read")
        self.check_no_writer()

    def identity_if_moved(self) -> FileIdentity:
        """Returns the identity after a rename out and back, as long as nothing else has changed."""
        with suppress(OSError):
            now = FileIdentity.of(os.fstat(self.fd))
            if now.same_content_as(self.identity):
                return now
        return self.identity

    def check_no_writer(self) -> None:
        """Raises NotReady if a process is known to hold the file open for writing."""
        if self.hides_writers:
            return
        try:
            seen, self.hides_writers = writers(self.fd)
        except OSError as error:
            raise _unreadable(error) from None
        if seen is Writers.SOME:
            raise NotReady("a program has it open for writing")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file, which gives the lock back."""
        _close(self.fd)


def open_file(folder: str, name: str, beat: Beat = no_beat) -> LocalFile:
    """Opens and locks the file of that name, if it is one and nobody is busy with it.

    Raises Gone, NotReady (locked, being written, not to be read now) or BadFile (not a regular file).
    """
    path = os.path.join(folder, name)
    try:
        fd = os.open(path, _OPEN_SAFELY)
    except OSError as error:
        raise _unopened(error) from None
    try:
        file = LocalFile(path, name, fd, _lock(path, fd), beat)
        file.hides_writers = "a network file system" if is_remote(fd) else ""
        file.check_no_writer()
    except BaseException as error:
        _close(fd)
        if isinstance(error, OSError):
            raise _unreadable(error) from None
        raise
    return file


def _close(fd: int) -> None:
    with suppress(OSError):  # it is closed all the same, and nothing was written to it
        os.close(fd)


def _unreadable(error: OSError) -> NotReady:
    return NotReady(f"it can't be read: {os.strerror(error.errno or 0)}")


def _unopened(error: OSError) -> Exception:
    if error.errno == errno.ENOENT:
        return Gone()
    if error.errno == errno.ELOOP:
        return BadFile("expected a regular file, got a symbolic link")
    if error.errno == errno.ENXIO:
        return BadFile("expected a regular file, got something else")
    return NotReady(f"it can't be opened: {os.strerror(error.errno or 0)}")


def _lock(path: str, fd: int) -> FileIdentity:
    """Keeps other daemons off while this one works; the kernel unlocks when the process ends.

    Returns the identity of the open file. Raises BadFile, NotReady, Gone or OSError.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise BadFile("expected a regular file, got something else")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise NotReady("another process has it locked") from None
    except OSError:
        pass  # not every network file system can lock: then the ledger alone decides
    # Only now: until it was locked, another process might have disposed of it.
    try:
        named = os.stat(path, follow_symlinks=False)
    except OSError as error:
        raise _unopened(error) from None
    status = os.fstat(fd)
    if not os.path.samestat(named, status):
        raise NotReady("another file took its name")
    return FileIdentity.of(status)


class _Raw(io.RawIOBase):
    """Reads the bytes from the beginning, whatever position the descriptor has."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            count = os.preadv(self._file.fd, [memoryview(buffer)[:_STEP_BYTES]], self._position)
        except OSError as error:
            raise _unreadable(error) from None
        self._position += count
        self._file.position = self._position
        self._file.beat()
        return count
