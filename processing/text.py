"""The text of a dropped file: decompressed, without a byte-order mark."""

import gzip
import io
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import zstandard

from processing.errors import BadFile, Incomplete, TooLarge
from processing.source import CHUNK_BYTES, SourceFile

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
#: zstd frames that hold no data, which every decoder passes over.
_SKIPPABLE = tuple(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))
_EMPTY_FRAME = _SKIPPABLE[0] + bytes(4)
_BOM = b"\xef\xbb\xbf"
_MARKS = (_GZIP, _ZSTD, *_SKIPPABLE, _BOM)
_UTF_16_OR_32 = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_MAX_WINDOW = 128 * 1024 * 1024

#: Reasons why sound zstd data can't be read, by words of the library's message.
_UNREADABLE = {
    "Dictionary mismatch": "expected zstd data without a dictionary, got some that needs one",
    "requires too much memory": (
        f"expected zstd data with a window of at most {_MAX_WINDOW} bytes, got a larger one"
    ),
}

#: Zeros in a row that are no data: the smallest block of a disk; and at the end, where neither UTF-32 has as
#: many nor the size of its text in gzip.
_BLOCK, _ZERO_TAIL = bytes(512), bytes(4)


class Readable(Protocol):
    """An object with read(size) -> bytes."""

    def read(self, size: int = -1, /) -> bytes: ...


class Opened(Protocol):
    """The bytes of a file or of a message; beat() reports progress to whoever watches for hangs."""

    def open_bytes(self) -> "io.BufferedReader[Any]": ...

    def beat(self) -> None: ...


def open_text(file: Opened, max_bytes: int) -> Readable:
    """Opens the file's text from its beginning, decompressed, without a byte-order mark.

    Its read() raises Incomplete (the compressed data ends too early), BadFile (it is damaged, too
    long or not UTF-8) and NotReady (the disk fails).
    """
    raw = file.open_bytes()
    head = raw.peek(4)[:4]  # the first bytes decide, not the name
    inner: Readable = raw
    if head.startswith(_GZIP):
        inner = gzip.GzipFile(fileobj=raw, mode="rb")
    elif head.startswith((_ZSTD, *_SKIPPABLE)):
        inner = _Zstd(raw)
    elif 0 < len(head) < 4 and any(mark.startswith(head) for mark in _MARKS if mark != head):
        raise Incomplete("its first bytes are not complete")
    return _Text(inner, max_bytes, file.beat)


def check_filled(file: SourceFile) -> None:
    """Raises Incomplete if zeros stand where data should, at the end or a block of them in a row.

    To be asked about a bad file: copies to a network share, downloads that can be resumed, and others
    allocate the whole file first.
    """
    raw, rest = file.open_bytes(), b""
    while chunk := raw.read(CHUNK_BYTES):
        rest += chunk
        if _BLOCK in rest:
            break
        rest = rest[-len(_BLOCK) :]
    if _BLOCK in rest or rest.endswith(_ZERO_TAIL):
        raise Incomplete("it holds zeros in place of data: not all of it was written")


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
        except zstandard.ZstdError as error:
            for words, reason in _UNREADABLE.items():
                if words in str(error):
                    raise BadFile(reason) from None
            if self._frames.has_ended:
                raise EOFError from None
            raise


class _Frames:
    """Appends an empty frame to zstd data, so that one that was cut off fails instead of ending silently."""

    def __init__(self, raw: Readable) -> None:
        self.has_ended = False
        self._raw = raw

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._raw.read(size)
        if chunk or self.has_ended:
            return chunk
        self.has_ended = True
        return _EMPTY_FRAME


class _Text:
    """Passes on decompressed chunks; converts errors of decompression into ours."""

    def __init__(self, inner: Readable, max_bytes: int, beat: Callable[[], None]) -> None:
        self._inner = inner
        self._beat = beat
        self._left = max_bytes
        self._at_start = True

    def read(self, size: int = -1, /) -> bytes:
        try:
            chunk = self._inner.read(size)
        except EOFError:
            raise Incomplete("its compressed data ends too early") from None
        except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            if str(error).endswith(f"({_GZIP[:1]!r})"):  # behind one member half of another's mark
                raise Incomplete("its compressed data ends too early") from None
            raise BadFile("expected sound gzip or zstd data, got damaged data") from None
        self._beat()
        self._left -= len(chunk)
        if self._left < 0:
            raise TooLarge
        if self._at_start and chunk:
            self._at_start = False
            if chunk.startswith(_UTF_16_OR_32):
                raise BadFile("expected UTF-8, got UTF-16, UTF-32 or binary data")
            chunk = chunk.removeprefix(_BOM)
        return chunk
