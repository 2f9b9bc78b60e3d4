"""Opens a dropped file safely, digests its bytes and gives back its text, all on one descriptor."""

import errno
import fcntl
import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import zstandard
from msgspec import Struct

from processing.errors import BadFile, Gone, Incomplete, NotReady, TooLarge

#: Bytes read at a time; larger chunks parse no faster.
CHUNK_BYTES = 64 * 1024

#: Text of a file that shares a transaction with others: it is held in memory, parsed.
MAX_SHARED_BYTES = 2 * 1024 * 1024

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"
#: A skippable frame of nothing, which every zstd decoder passes over.
_EMPTY_FRAME = b"\x50\x2a\x4d\x18" + bytes(4)
_UTF_16_OR_32 = (b"\xff\xfe", b"\xfe\xff", b"\0")
_MAX_WINDOW = 128 * 1024 * 1024
_OPEN_SAFELY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Readable(Protocol):
    """Anything with read(size) -> bytes."""

    def read(self, size: int = -1, /) -> bytes: ...


#: Tells whoever watches that there is progress.
Beat = Callable[[], None]


def _nothing() -> None:
    """Nobody watches."""


class Stamp(Struct, frozen=True):
    """What tells that a name still means the same file, and that nobody has changed it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stamp":
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_same_but_moved(self, other: "Stamp") -> bool:
        """A rename changes ctime and nothing else."""
        return (self.device, self.inode, self.size, self.mtime_ns) == (
            (other.device, other.inode, other.size, other.mtime_ns)
        )


class Source:
    """A dropped file, open for reading and locked against other daemons; close() gives both up."""

    def __init__(self, folder: str, name: str, fd: int, stamp: Stamp, beat: Beat = _nothing) -> None:
        self.name = name
        self.beat = beat
        self.path = os.path.join(folder, name)
        self.fd = fd
        self.stamp = stamp
        self.sha256 = b""
        self.content: bytes | None = None

    def digest(self) -> None:
        """Sets sha256, of the bytes as dropped; keeps the content of a small file, to read it only once."""
        raw = io.BufferedReader(_Raw(self.fd, self.beat), CHUNK_BYTES)
        if self.stamp.size <= MAX_SHARED_BYTES:
            self.content = raw.read()
            self.sha256 = hashlib.sha256(self.content).digest()
        else:
            self.sha256 = hashlib.file_digest(raw, "sha256").digest()

    def check_unchanged(self) -> None:
        """Raises NotReady if anyone has written, or may be about to."""
        self.beat()
        with _readable():
            is_same = Stamp.of(os.fstat(self.fd)) == self.stamp
        if not is_same:
            raise NotReady("it changed while it was read")
        if self.has_writer():
            raise NotReady("a program has it open for writing")

    def stamp_if_moved(self) -> Stamp:
        """The stamp as it is since a move there and back, as long as nothing else has changed."""
        with suppress(OSError):
            now = Stamp.of(os.fstat(self.fd))
            if now.is_same_but_moved(self.stamp):
                return now
        return self.stamp

    def has_writer(self) -> bool:
        """Whether a process holds the file open for writing, as far as the system tells.

        A read lease is refused while there is one (fcntl(2), F_SETLEASE); it needs Linux, a local
        file system, and the file's owner or root.
        """
        if not hasattr(fcntl, "F_SETLEASE"):
            return False
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.EBUSY)
        with suppress(OSError):  # then it is given up when the file is closed
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False

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


def open_text(source: Source, max_bytes: int) -> Readable:
    """The file's text from its beginning, decompressed, without a byte-order mark.

    Its read() raises Incomplete (the compressed data ends too early), BadFile (it is damaged, too
    long or not UTF-8) and NotReady (the disk fails).
    """
    bytes_as_dropped = (
        io.BytesIO(source.content) if source.content is not None else _Raw(source.fd, source.beat)
    )
    raw = io.BufferedReader(bytes_as_dropped, CHUNK_BYTES)
    return _Text(_decompressed(raw), max_bytes, source.beat)


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


def _stamp_of_named(path: str, fd: int) -> Stamp:
    """Taken with the lock held: before that, another process may have settled the file."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except OSError as error:
        raise _unopened(error) from None
    status = os.fstat(fd)
    if not os.path.samestat(named, status):
        raise NotReady("another file took its name")
    return Stamp.of(status)


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


def _decompressed(raw: "io.BufferedReader[io.BytesIO | _Raw]") -> Readable:
    """Told by the first bytes, not by the name."""
    head = raw.peek(4)[:4]
    if head.startswith(_GZIP):
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if head.startswith(_ZSTD):
        return _Zstd(raw)
    if head and any(len(head) < len(mark) and mark.startswith(head) for mark in (_GZIP, _ZSTD, _BOM)):
        raise Incomplete("its first bytes are not complete")
    return raw


class _Zstd:
    """Decompresses zstd data; raises EOFError where it ends too early, which the library takes for an end."""

    def __init__(self, raw: Readable) -> None:
        self._frames = _Frames(raw)
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._text = decompressor.stream_reader(
            self._frames,  # type: ignore[arg-type]  # read() is all that it asks for
            read_across_frames=True,
        )

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._text.read(size)
        except zstandard.ZstdError:
            if self._frames.ended:
                raise EOFError from None
            raise


class _Frames:
    """zstd data and an empty frame behind it, over which one that still lacks something stumbles."""

    def __init__(self, raw: Readable) -> None:
        self.ended = False
        self._raw = raw

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._raw.read(size)
        if chunk or self.ended:
            return chunk
        self.ended = True
        return _EMPTY_FRAME


class _Text:
    """Passes on decompressed chunks; the edge where errors of decompression become ours."""

    def __init__(self, inner: Readable, max_bytes: int, beat: Beat) -> None:
        self._inner = inner
        self._beat = beat
        self._left = max_bytes
        self._at_start = True

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._read(size)
        self._beat()
        self._left -= len(chunk)
        if self._left < 0:
            raise TooLarge
        if self._at_start and chunk:
            self._at_start = False
            chunk = _without_mark(chunk)
        return chunk

    def _read(self, size: int) -> bytes:
        try:
            return self._inner.read(size)
        except EOFError:
            raise Incomplete("its compressed data ends too early") from None
        except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError):
            raise BadFile("expected sound gzip or zstd data, got damaged data") from None


def _without_mark(chunk: bytes) -> bytes:
    if chunk.startswith(_UTF_16_OR_32):
        raise BadFile("expected UTF-8, got UTF-16, UTF-32 or binary data")
    return chunk.removeprefix(_BOM)
