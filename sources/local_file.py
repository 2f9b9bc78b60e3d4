"""Opens a dropped file safely, digests its bytes and gives back its text, all on one descriptor."""

import errno
import fcntl
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

from processing.errors import BadFile, Gone, NotReady
from sources.lease import Writers, is_remote, writers

#: Bytes read at a time; larger chunks parse no faster.
CHUNK_BYTES = 64 * 1024

#: Text of a file that shares a transaction with others: it is held in memory, parsed.
MAX_SHARED_BYTES = 2 * 1024 * 1024

_OPEN_SAFELY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


#: Tells whoever watches that there is progress.
Beat = Callable[[], None]


def _nothing() -> None:
    """Nobody watches."""


class FileIdentity(Struct, frozen=True):
    """What tells that a name still means the same file, and that nobody has changed it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileIdentity":
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def same_content_as(self, other: "FileIdentity") -> bool:
        """A rename changes ctime and nothing else."""
        return (self.device, self.inode, self.size, self.mtime_ns) == (
            (other.device, other.inode, other.size, other.mtime_ns)
        )


class Source:
    """A dropped file, open for reading and locked against other daemons; close() gives both up."""

    def __init__(
        self, folder: str, name: str, fd: int, identity: FileIdentity, beat: Beat = _nothing
    ) -> None:
        self.name = name
        self.beat = beat
        self.path = os.path.join(folder, name)
        self.fd = fd
        self.identity = identity
        self.sha256 = b""
        self.content: bytes | None = None
        #: Whether nobody can tell if it is being written: then only time tells.
        self.hides_writers = ""  # why nobody can tell who writes it

    def open_bytes(self) -> "io.BufferedReader[io.BytesIO | _Raw]":
        """The bytes as dropped, from the beginning, as often as asked; its read() raises NotReady."""
        raw = io.BytesIO(self.content) if self.content is not None else _Raw(self.fd, self.beat)
        return io.BufferedReader(raw, CHUNK_BYTES)

    def digest(self) -> None:
        """Sets sha256, of the bytes as dropped; keeps the content of a small file, to read it only once."""
        raw = self.open_bytes()
        if self.identity.size <= MAX_SHARED_BYTES:
            self.content = raw.read()
            self.sha256 = hashlib.sha256(self.content).digest()
        else:
            self.sha256 = hashlib.file_digest(raw, "sha256").digest()

    def check_unchanged(self) -> None:
        """Raises NotReady if anyone has written, or may be about to."""
        self.beat()
        with _readable():
            is_same = FileIdentity.of(os.fstat(self.fd)) == self.identity
        if not is_same:
            raise NotReady("it changed while it was read")
        if self.has_writer():
            raise NotReady("a program has it open for writing")

    def identity_if_moved(self) -> FileIdentity:
        """The stamp as it is since a move there and back, as long as nothing else has changed."""
        with suppress(OSError):
            now = FileIdentity.of(os.fstat(self.fd))
            if now.same_content_as(self.identity):
                return now
        return self.identity

    def has_writer(self) -> bool:
        """Whether a process is known to hold the file open for writing."""
        if self.hides_writers:
            return False
        with _readable():
            seen, self.hides_writers = writers(self.fd)
        return seen is Writers.SOME

    def close(self) -> None:
        _close(self.fd)


@contextmanager
def open_source(folder: str, name: str, beat: Beat = _nothing) -> Iterator[Source]:
    """The file of that name, if it is one and nobody is busy with it; each step in reading it beats.

    Raises Gone, NotReady (locked, being written, not to be read now) or BadFile (not a regular file).
    """
    source = _open(folder, name, beat)
    try:
        yield source
    finally:
        source.close()


def _open(folder: str, name: str, beat: Beat) -> Source:
    path = os.path.join(folder, name)
    try:
        fd = os.open(path, _OPEN_SAFELY)
    except OSError as error:
        raise _unopened(error) from None
    try:
        with _readable():
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise BadFile("expected a regular file, got something else")
            _lock(fd)
            source = Source(folder, name, fd, _stamp_of_named(path, fd), beat)
            source.hides_writers = "a network file system" if is_remote(fd) else ""
        if source.has_writer():
            raise NotReady("a program has it open for writing")
        return source
    except BaseException:
        _close(fd)
        raise


def _close(fd: int) -> None:
    with suppress(OSError):  # it is closed all the same, and nothing was written to it
        os.close(fd)


@contextmanager
def _readable() -> Iterator[None]:
    """What the system refuses of a file that is open makes it wait."""
    try:
        yield
    except OSError as error:
        raise NotReady(f"it can't be read: {os.strerror(error.errno or 0)}") from None


def _unopened(error: OSError) -> Exception:
    if error.errno == errno.ENOENT:
        return Gone()
    if error.errno == errno.ELOOP:
        return BadFile("expected a regular file, got a symbolic link")
    if error.errno == errno.ENXIO:
        return BadFile("expected a regular file, got something else")
    return NotReady(f"it can't be opened: {os.strerror(error.errno or 0)}")


def _stamp_of_named(path: str, fd: int) -> FileIdentity:
    """Taken with the lock held: before that, another process may have settled the file."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except OSError as error:
        raise _unopened(error) from None
    status = os.fstat(fd)
    if not os.path.samestat(named, status):
        raise NotReady("another file took its name")
    return FileIdentity.of(status)


def _lock(fd: int) -> None:
    """Keeps other daemons off while this one works; the kernel unlocks when the process ends."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise NotReady("another process has it locked") from None
    except OSError:
        pass  # not every network file system can lock: then the ledger alone decides


class _Raw(io.RawIOBase):
    """The bytes as dropped, from the beginning, whatever position the descriptor has."""

    def __init__(self, fd: int, beat: Beat) -> None:
        self._fd = fd
        self._beat = beat
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _readable():
            count = os.preadv(self._fd, [buffer], self._position)
        self._position += count
        self._beat()
        return count
