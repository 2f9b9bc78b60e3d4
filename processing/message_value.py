"""Reads the values of messages: each is one record or one document, compressed or not."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from msgspec import DecodeError, Raw, json

from processing.document import Document, LongKey, Miscounted, RepeatedKey
from processing.errors import BadFile, FileError, TooLarge
from processing.file_types import KINDS, Kinds
from processing.json_limits import MAX_ELEMENT_BYTES
from processing.records import Decoded, Kind, Parsed, Rejected
from processing.source import CHUNK_BYTES
from processing.text import open_text

#: Records of documents whose elements are held until they are written; those of others are read twice.
MOST_HELD = 20_000

#: Characters that are kept of a value that is no JSON; its bytes are kept beside them.
_SHOWN_CHARACTERS = 10_000

_ANY_OBJECT = json.Decoder(dict[str, Raw])
_ELEMENTS = json.Decoder(list[Raw])
_BLANKS = b" \t\r\n"


class _Value:
    """The value of a message as a file to open."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def open_bytes(self) -> "io.BufferedReader[io.BytesIO]":
        return io.BufferedReader(io.BytesIO(self._value), CHUNK_BYTES)

    def beat(self) -> None: ...


class DocumentValue:
    """A value that is a document, as it could be dropped as a file."""

    def __init__(self, value: bytes, max_bytes: int, kinds: Kinds = KINDS) -> None:
        """Raises FileError if it does not begin as a document."""
        self.size = len(value)
        self.extra: str | None = None
        self.records = 0
        self._value = value
        self._open_again = partial(open_text, _Value(value), max_bytes)
        self._kinds = kinds
        self._is_careful = False
        self._held: list[Parsed] | None = None
        self.kind = self._document().kind

    @property
    def sha256(self) -> bytes:
        """The digest by which the ledger knows a file with these bytes."""
        return hashlib.sha256(self._value).digest()

    def check(self, most_held: int) -> None:
        """Reads all of it, holding the elements if their records are no more; raises FileError."""
        try:
            self._read_all(most_held)
        except (RepeatedKey, LongKey, Miscounted):
            self._is_careful = True
            self._read_all(most_held)

    def parsed(self) -> Iterator[Parsed]:
        """Yields the elements, after check()."""
        yield from self._document().parsed() if self._held is None else self._held

    def _read_all(self, most_held: int) -> None:
        document = self._document()
        elements = records = 0
        held: list[Parsed] = []
        for parsed in document.parsed():
            elements += parsed.count
            records += len(parsed.records) + len(parsed.rejected)
            if records <= most_held:
                held.append(parsed)
            else:
                held.clear()
        document.check(elements, records)
        self.extra, self.records = document.extra, records
        self._held = held if records <= most_held else None

    def _document(self) -> Document:
        return Document("", self._open_again, careful=self._is_careful, kinds=self._kinds)


class Block(NamedTuple):
    """Values as one array, and what they were decoded to."""

    source: bytes
    decoded: Decoded


def read_block(values: Sequence[bytes], kind: Kind) -> Block | None:
    """Returns values together of which each is exactly one record as documented; else None."""
    texts = [value.strip(_BLANKS) for value in values]
    source = b"[%b]" % b",".join(texts)
    decoded = kind.decode_fast(source)
    if decoded is None or decoded.elements != len(texts):
        return None
    # The decoder takes a key twice, and the number of quotes shows it.
    if source.count(b'"') != 2 * kind.fast_strings(len(texts), len(decoded.records)):
        return None
    # An element may begin in one value and end in another: the number of elements does not show it.
    is_exact = [*map(len, _ELEMENTS.decode(source))] == [*map(len, texts)]
    return Block(source, decoded) if is_exact else None


def read_records(values: Sequence[bytes], kind: Kind) -> list[Parsed]:
    """Returns each value, which is the text of one record, as an element; raises FileError or Miscounted.

    Several at once take less time; if one of them is no record, or not just one, it raises for all.
    """
    text = b'{"%b":[%b]}' % (kind.key.encode(), b",".join(values))
    document = Document("", lambda: io.BytesIO(text), careful=True, kinds={kind.name: kind})
    elements = list(document.parsed())
    if len(elements) != len(values) or document.extra is not None:
        raise BadFile("expected one record or one document, got several values or another text around it")
    return elements


def is_one_value(value: bytes) -> bool:
    """Returns whether it is the text of one JSON object, which no neighbour can change."""
    try:
        _ANY_OBJECT.decode(value)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def may_be_document(value: bytes, kinds: Kinds = KINDS) -> bool:
    """Returns whether it may hold the key of a document; keys may be written with escapes."""
    is_plain = value.lstrip(_BLANKS).startswith(b"{") and b"\\" not in value
    return not is_plain or any(b'"%b"' % kind.key.encode() in value for kind in kinds.values())


def read_any(value: bytes, kind: Kind, max_bytes: int, kinds: Kinds = KINDS) -> DocumentValue | Parsed:
    """Returns a value of any form as a document or an element; raises FileError if it is neither."""
    try:
        document = DocumentValue(value, max_bytes, kinds)
    except TooLarge:
        raise
    except FileError:
        return _read_single(value, kind)
    document.check(MOST_HELD)
    return document


def _read_single(value: bytes, kind: Kind) -> Parsed:
    text = b""
    reader = open_text(_Value(value), MAX_ELEMENT_BYTES)
    try:
        while chunk := reader.read(CHUNK_BYTES):
            text += chunk
    except TooLarge:
        raise BadFile(f"expected a record of at most {MAX_ELEMENT_BYTES} bytes, got more") from None
    if not text.strip():
        raise BadFile("expected a record or a document, got no text")
    try:
        (parsed,) = read_records([text], kind)
    except FileError as error:
        raise BadFile(_syntax_error(text) or str(error)) from None
    return parsed


def _syntax_error(text: bytes) -> str:
    """Returns what is wrong with the text as JSON, if that is it; without the text, which may be secret."""
    try:
        json.decode(text, type=Raw)
        _ANY_OBJECT.decode(text)
    except UnicodeDecodeError:
        return "expected UTF-8, got other bytes"
    except DecodeError as error:
        return f"expected a record or a document: {error}"
    except RecursionError:
        return ""
    return ""


def reject(value: bytes | None, reason: str) -> Rejected:
    """Returns a value as a reject as a whole; its position is that of the first record."""
    original = None if value is None else value.decode("utf-8", "backslashreplace")[:_SHOWN_CHARACTERS]
    return Rejected(0, "$", "invalid", f"{reason[:1].upper()}{reason[1:]}", original)
