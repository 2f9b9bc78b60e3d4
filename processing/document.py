"""Reads one document, an object with one array in it, as a stream of parsed elements."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import InvalidOperation
from itertools import islice
from typing import Any, NoReturn

from ijson.backends import yajl2_c
from ijson.common import JSONError
from ijson.utils import sendable_list
from msgspec.structs import replace

from processing.digits import LongIntegers
from processing.envelope import Envelope, has_several, is_usual
from processing.errors import BadFile, Incomplete
from processing.fast_path import HEAD, UNFINISHED_HEAD, FastPath
from processing.file_types import KINDS, Kinds, kind_of_key, kind_of_name
from processing.json_limits import MAX_ELEMENT_BYTES, JsonLimits
from processing.long_keys import LongKeys, built_carefully
from processing.records import Kind, Parsed
from processing.source import CHUNK_BYTES
from processing.tally import Tally
from processing.text import Readable

#: Opens the text from its beginning; called again to find where a syntax error stands.
OpenText = Callable[[], Readable]

#: A number where the array should be, which the parser may not have reported: it stands at the text's end, or
#: is beyond 64 bits.
_SOLE_NUMBER = re.compile(
    rb'[ \t\n\r]*+(?:\{[ \t\n\r]*+"(?:[^"\\]++|\\.)*+"[ \t\n\r]*+:[ \t\n\r]*+)?+'
    rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+(?![0-9.eE+-])",
    re.DOTALL,
)

_SEVERAL = "several JSON values one behind the other (NDJSON?)"

#: Bytes that elements take in memory, for each byte of their text.
_WEIGHT = 2


class RepeatedKey(Exception):
    """A key that an object has twice: the document must be read carefully."""


class LongKey(Exception):
    """A very long key: the document must be read carefully."""


class Miscounted(BadFile):
    """A difference between what was handed on of the document and what it holds.

    A careful pass may do better; if it does not, the file is quarantined, whole, until this program is fixed.
    """

    def __init__(self, elements: int, records: int) -> None:
        super().__init__(
            "expected to read all elements of the document, "
            f"got {elements} of them with {records} records: a fault of this program"
        )


class Document:
    """One pass over a document, whose kind is known from the start.

    The fast path reads blocks of elements that are exactly as documented. From the first other block on, the
    parser takes over, which can say what is wrong with any text: it reads the document again from its
    beginning, so one bad record sends the rest of the file through the slow path. A careful pass reports
    repeated keys and takes no harm from long ones, at twice the time. Once it has been read, extra
    has the fields beside the array as JSON.
    """

    def __init__(self, name: str, open_text: OpenText, *, careful: bool, kinds: Kinds = KINDS) -> None:
        self.has_repeats = False
        self.extra: str | None = None
        self._open_whole = open_text
        self._careful = careful
        self._kinds = kinds
        self._keys = [kind.key for kind in kinds.values()]
        self._envelope: Envelope | None = None
        self._text = Tally(open_text())
        self._head = self._read_head()
        if len(self._head) >= CHUNK_BYTES or not is_usual(self._head, self._keys):
            self._envelope = self._open_envelope(is_hasty=True)
            self._text = Tally(self._envelope)
            self._head = self._read_head()
        match = HEAD.match(self._head)
        self._key = match[1].decode() if match else self._read_unusual_key(self._head)
        self.kind = _kind(name, self._key, kinds)
        self._fast_path = FastPath(self._head, self._text, self.kind)

    def parsed(self) -> Iterator[Parsed]:
        """Yields the elements of the array, in order.

        Raises BadFile, Incomplete or NotReady at the place that is wrong, after the elements before
        them; RepeatedKey, LongKey or Miscounted if only a careful pass can read it.
        """
        if not self._careful:
            yield from self._fast_path.parsed()
        if self._fast_path.is_whole:
            # Here, too, since the number of quotes also shows a key that comes twice.
            self.check(self._fast_path.elements, self._fast_path.records)
        else:
            yield from islice(self._parsed_one_by_one(), self._fast_path.elements, None)
        self.extra = self._envelope.extra() if self._envelope else None

    def check(self, elements: int, records: int) -> None:
        """Compares what was handed on with a count that is made in another way.

        Raises Miscounted: no fault of this program may lose a row unseen.
        """
        if self._fast_path.is_whole:
            quotes = 2 * (1 + self.kind.fast_strings(elements, records))
            agrees = self._text.is_closed and self._text.quotes == quotes
        else:
            agrees = self._checked.structure.elements == elements
        if not agrees:
            raise Miscounted(elements, records)

    def _open_envelope(self, *, is_hasty: bool = False) -> Envelope:
        return Envelope(self._open_whole(), self._keys, is_hasty=is_hasty)

    def _open_text(self) -> Readable:
        return self._open_envelope()

    def _parsed_one_by_one(self) -> Iterator[Parsed]:
        self._envelope = self._open_envelope()
        self._checked = _Checked(self._envelope, is_wary=not self._careful)
        keys, read = 1, 0
        for parsed in self.kind.parse(self._elements()):
            keys += parsed.keys
            if read < self._checked.chunk_end:  # the first of some from a chunk stands for its text
                text = _WEIGHT * (self._checked.chunk_end - read)
                read = self._checked.chunk_end
                yield replace(parsed, extra_bytes=parsed.extra_bytes + text)
            else:
                yield parsed
        self._checked.structure.finish()
        self.has_repeats = keys != self._checked.structure.keys
        if self.has_repeats and not self._careful:
            raise RepeatedKey

    def _elements(self) -> Iterator[Any]:
        count = 0
        try:
            for element in self._built():
                yield element
                del element  # it may be large, and so may the next
                count += 1
        except (JSONError, UnicodeDecodeError) as error:
            self._refuse(error, count)
        except InvalidOperation:
            raise BadFile(f"expected exponents of at most 18 digits, got more in element {count}") from None

    def _read_head(self) -> bytes:
        """Reads the first bytes, and more while only blanks keep the array from beginning."""
        head = self._text.read(CHUNK_BYTES)
        while len(head) < MAX_ELEMENT_BYTES and UNFINISHED_HEAD.fullmatch(head):
            more = self._text.read(CHUNK_BYTES)
            if not more:
                break
            head += more
        return head

    def _built(self) -> Iterator[Any]:
        if self._careful:
            return built_carefully(self._checked)
        elements: Iterator[Any] = yajl2_c.items(self._checked, f"{self._key}.item", buf_size=CHUNK_BYTES)
        return elements

    def _read_unusual_key(self, head: bytes) -> str:
        """Returns a key that is written in an unusual way, for instance with escapes; else raises BadFile."""
        events = _first_events(head)
        if [event for event, _ in events] == ["start_map", "map_key", "start_array"]:
            return str(events[1][1])
        found = _describe(events)
        if found and has_several(head):
            raise BadFile(f"expected one document, got {_SEVERAL}")
        if found:
            raise BadFile(f"expected one array under one of the keys {_known_keys(self._kinds)}, got {found}")
        self._checked = _Checked(self._open_text())
        self._parse_for_error()
        raise BadFile(
            f"expected one of the keys {_known_keys(self._kinds)} in the first {len(head)} bytes, got none"
        )

    def _parse_for_error(self) -> None:
        try:
            for _ in yajl2_c.basic_parse(self._checked, buf_size=CHUNK_BYTES):
                pass
        except (JSONError, UnicodeDecodeError) as error:
            self._refuse(error, 0)

    def _refuse(self, error: Exception, count: int) -> NoReturn:
        """Raises what the parser has found, with its place; never the text around it, which may be secret."""
        complaint = _complaint(error)
        if self._checked.has_ended:
            raise Incomplete(f"it ends in the middle, after {count} whole elements") from None
        offset = find_offset(self._open_text, self._checked.chunk_start)
        # In a string a zero is a bad character, unless all that is left is zeros.
        if _holds_zeros(self._open_text(), offset, to_end=complaint.endswith("inside string")):
            raise Incomplete(f"it holds zeros in place of text at byte {offset}") from None
        if complaint.endswith("trailing garbage") and _byte_at(self._open_text(), offset) in (b"{", b"["):
            raise BadFile(
                f"expected one document, got more behind it: {_SEVERAL}, at byte {offset}"
            ) from None
        place = f"at byte {offset}, in element {count}"
        raise BadFile(f"expected valid JSON, got a {complaint} {place}") from None


class _Checked:
    """The text on its way to the parser, its structure checked chunk by chunk.

    Its integers are never so long that they crash the parser. Raises LongKey if it is wary of them.
    """

    def __init__(self, text: Readable, *, is_wary: bool = False) -> None:
        self.structure = JsonLimits()
        self.chunk_start = self.chunk_end = 0
        self.has_ended = False
        self._text = text
        self._is_wary = is_wary
        self._integers = LongIntegers()
        self._long_keys = LongKeys()

    def read(self, size: int = -1, /) -> bytes:
        if size == 0:  # ijson asks so whether it gets bytes
            return b""
        chunk = self._text.read(size)
        self.has_ended = not chunk
        self.chunk_start, self.chunk_end = self.chunk_end, self.chunk_end + len(chunk)
        opening = self.structure.opening
        self.structure.feed(chunk)
        if self._is_wary and self._long_keys.found_in(chunk, opening, self.structure):
            raise LongKey
        return self._integers.feed(chunk, opening, self.structure)


def find_offset(open_text: OpenText, chunk_start: int) -> int:
    """Finds the byte at which the parser gives up, from the chunk in which it does.

    In two steps, since the parser looks at a long string again from its beginning for each piece of it.
    """
    return _last_good(_Checked(open_text()), _last_good(_Checked(open_text()), chunk_start, 256), 1)


def _last_good(text: _Checked, start: int, step: int) -> int:
    """Returns how far the parser gets: to the start, and from there in steps of `step` bytes."""
    parser = yajl2_c.basic_parse_coro(_Nowhere())
    with suppress(JSONError, UnicodeDecodeError):
        while text.chunk_end < start:
            parser.send(text.read(min(CHUNK_BYTES, start - text.chunk_end)))
        while text.chunk_end < start + CHUNK_BYTES and not text.has_ended:
            parser.send(text.read(step))
        return text.chunk_end
    return text.chunk_start


def _byte_at(text: Readable, offset: int) -> bytes:
    while offset >= len(chunk := text.read(CHUNK_BYTES)) and chunk:
        offset -= len(chunk)
    return chunk[offset : offset + 1]


def _holds_zeros(text: Readable, offset: int, *, to_end: bool) -> bool:
    """Returns whether a byte of the text is zero, and, if asked, all behind it."""
    while offset >= len(chunk := text.read(CHUNK_BYTES)) and chunk:
        offset -= len(chunk)
    chunk = chunk[offset:]
    if to_end:
        while chunk and not chunk.strip(b"\0"):
            chunk = text.read(CHUNK_BYTES)
        return not chunk
    return chunk.startswith(b"\0")


class _Nowhere:
    """Takes the parser's events and drops them."""

    def send(self, event: tuple[str, Any]) -> None: ...


def _first_events(head: bytes) -> list[tuple[str, Any]]:
    """Returns up to three events of a text's beginning, as far as it parses."""
    events = sendable_list()
    parser = yajl2_c.basic_parse_coro(events, use_float=True)
    with suppress(JSONError, UnicodeDecodeError):
        parser.send(head)
    found = list(events[:3])
    return [*found, ("number", None)] if len(found) in (0, 2) and _SOLE_NUMBER.match(head) else found


_FOUND = {
    "start_array": "an array",
    "start_map": "an object",
    "end_map": "an empty object",
    "null": "null",
    "boolean": "a boolean",
    "number": "a number",
    "string": "text",
}


def _describe(events: list[tuple[str, Any]]) -> str:
    """Names the value that stands where the array should; empty if the text does not parse that far."""
    if not events:
        return ""
    if events[0][0] != "start_map":
        return _FOUND[events[0][0]]
    if len(events) > 1 and events[1][0] == "end_map":
        return "an empty object"
    return f"{_FOUND[events[2][0]]} under the key {_shown(events[1][1])}" if len(events) > 2 else ""


def _kind(name: str, key: str, kinds: Kinds) -> Kind:
    kind, promised = kind_of_key(key, kinds), kind_of_name(name, kinds)
    if kind is None:
        raise BadFile(f"expected one of the top-level keys {_known_keys(kinds)}, got {_shown(key)}")
    if promised not in (None, kind):
        raise BadFile(f"expected the top-level key {promised.key} of the file's name, got {_shown(key)}")
    return kind


def _known_keys(kinds: Kinds) -> str:
    return ", ".join(kind.key for kind in kinds.values())


def _shown(key: str) -> str:
    """Formats a key for the log: short and without control characters."""
    return ascii(key[:40])


def _complaint(error: Exception) -> str:
    """Returns the first line of the parser's error; the others quote the text."""
    if isinstance(error, UnicodeDecodeError):
        return "lexical error: invalid bytes in UTF8 string"
    text = str(error).removeprefix("b'").removeprefix('b"')
    return text.split("\n")[0].split("\\n")[0].rstrip(".")
