"""The text of a dropped file: decompressed, without a byte-order mark."""

import gzip
import io
import zlib
from typing import Any, Protocol

import zstandard

from processing.errors import BadFile, Incomplete, TooLarge
from processing.reader import Beat, Source

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"
#: A skippable frame of nothing, which every zstd decoder passes over.
_EMPTY_FRAME = b"\x50\x2a\x4d\x18" + bytes(4)
_UTF_16_OR_32 = (b"\xff\xfe", b"\xfe\xff", b"\0")
_MAX_WINDOW = 128 * 1024 * 1024


class Readable(Protocol):
    """Anything with read(size) -> bytes."""

    def read(self, size: int = -1, /) -> bytes: ...


def open_text(source: Source, max_bytes: int) -> Readable:
    """The file's text from its beginning, decompressed, without a byte-order mark.

    Its read() raises Incomplete (the compressed data ends too early), BadFile (it is damaged, too
    long or not UTF-8) and NotReady (the disk fails).
    """
    return _Text(_decompressed(source.open_bytes()), max_bytes, source.beat)


def _decompressed(raw: "io.BufferedReader[Any]") -> Readable:
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
