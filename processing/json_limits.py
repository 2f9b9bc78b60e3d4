"""Checks a document's shape (one array under one key) and limits before its bytes reach the parser.

The parser checks neither: 20,000 nested brackets cost it a gigabyte, a string of 200 MB several times its
size, and it takes elements under a repeated or dotted key for elements of the expected one. Brackets, colons
and commas outside of strings are enough to detect all this, at a tenth of the cost of parsing.
"""

import re

from processing.errors import BadFile, Incomplete

#: Levels of nesting that a document may have; the formats need 5.
MAX_DEPTH = 64

#: Bytes that one element of the array may have.
MAX_ELEMENT_BYTES = 4 * 1024 * 1024

_ALL_BUT_MARKS = bytes(set(range(256)) - set(b'[]{}:,"'))
_ARRAY_DEPTH = 2
_HEAD, _TAIL = b"{:[", b"}"
_STRING = re.compile(rb'"[^"]*"')
#: The marks of strings with a time that has an offset, or none.
_COMMON_STRINGS = (b'":::"', b'"::"')
_EMPTY_STRING = b'""'
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_LIST = re.compile(rb"\[,+\]")

#: Bytes that are white space for the parser, but not in JSON.
_NO_BLANKS = {b"\v": "vertical tab", b"\f": "form feed"}

#: Matches a document up to the first byte of its first element, or up to the array's end.
_OPENING = re.compile(
    rb'(?:[^"\[]++|"(?:[^"\\]++|\\.)*+")*+\[[ \t\n\r]*+([^ \t\n\r])',
    re.DOTALL,
)


class JsonLimits:
    """The checks of one document, whose chunks are fed in order.

    keys counts the keys of all objects: a parser that returns fewer has dropped a repeated one. elements
    counts, once the document is finished, the elements of the array: a reader must return as many.
    """

    def __init__(self) -> None:
        self.keys = 0
        self._commas = 0
        self._is_empty = False
        self._opening: bytes | None = b""
        self._size = 0
        self._depth = 0
        self._in_string = False
        self._escape = b""
        self._head = b""
        self._closed = False
        self._tail = b""
        self._element_bytes = 0
        self._surrogates = Surrogates()

    @property
    def elements(self) -> int:
        """The number of elements in the array, from the commas between them."""
        return 0 if self._is_empty else self._commas + 1

    @property
    def opening(self) -> bytes:
        """Bytes that make the next chunk readable by itself, if it begins inside a string."""
        return b'"' + self._escape if self._in_string else b""

    def feed(self, chunk: bytes) -> None:
        """Raises BadFile as soon as the document breaks a bound or its shape."""
        self._surrogates.feed(chunk)
        self._look_for_no_blanks(chunk)
        marks = self._outside_strings(chunk)
        self.keys += marks.count(b":")
        if len(self._head) < len(_HEAD):
            self._head = (self._head + marks[: len(_HEAD)])[: len(_HEAD)]
        if self._opening is not None:
            self._look_for_first(chunk)
        self._descend(marks, len(chunk))

    def finish(self) -> None:
        """Raises BadFile if the document, which the parser accepted, is not one array under one key.

        Raises Incomplete for an unfinished string after the document: the parser accepts that, too.
        """
        self._surrogates.finish()
        if self._in_string:
            raise Incomplete("it ends in the middle of a string")
        if self._head != _HEAD or self._tail != _TAIL:
            raise BadFile("expected one top-level key with an array under it, got something else")

    def _look_for_no_blanks(self, chunk: bytes) -> None:
        for byte, name in _NO_BLANKS.items():
            if byte in chunk:
                raise BadFile(f"expected valid JSON, got a {name} at byte {self._size + chunk.index(byte)}")
        self._size += len(chunk)

    def _look_for_first(self, chunk: bytes) -> None:
        """Finds out whether the array is empty: a single number leaves no mark."""
        self._opening = (self._opening or b"") + chunk
        first = _OPENING.match(self._opening)
        if first or not _HEAD.startswith(self._head):
            self._is_empty = first is not None and first[1] == b"]"
            self._opening = None

    def _outside_strings(self, chunk: bytes) -> bytes:
        """Returns the brackets, colons and commas of a chunk that are outside of strings."""
        if b"\\" in chunk or self._escape:
            chunk = self._without_escapes(chunk)
        marks = chunk.translate(None, _ALL_BUT_MARKS)
        if self._in_string:
            end = marks.find(b'"')
            if end < 0:
                return b""
            marks = marks[end + 1 :]
        self._in_string = marks.count(b'"') % 2 == 1
        if self._in_string:
            marks = marks[: marks.rindex(b'"')]
        for common in _COMMON_STRINGS:
            # Two quotes stay: if nothing did, the colons around two removed strings would look like a third.
            marks = marks.replace(common, _EMPTY_STRING)
        marks = marks.replace(_EMPTY_STRING, b"")
        return _STRING.sub(b"", marks) if b'"' in marks else marks

    def _without_escapes(self, chunk: bytes) -> bytes:
        """Removes escaped quotes; keeps a backslash at the end for the next chunk, which it escapes."""
        text = (self._escape + chunk).replace(b"\\\\", b"").replace(b'\\"', b"")
        self._escape = b"\\" if text.endswith(b"\\") else b""
        return text

    def _descend(self, marks: bytes, size: int) -> None:
        # Commas before keys would keep the pairs of brackets apart.
        brackets = marks.replace(b",:", b"").translate(_AS_SQUARE, b":")
        unpaired, height = _without_pairs(brackets)
        closing, opening = unpaired.count(b"]"), unpaired.count(b"[")
        lowest = self._depth - closing
        if self._closed:
            self._tail = (self._tail + marks)[: len(_TAIL) + 1]
        elif min(self._depth, lowest) < _ARRAY_DEPTH:
            self._look_for_end(marks)
        elif lowest == _ARRAY_DEPTH:
            self._commas += unpaired[unpaired.rfind(b"]") + 1 :].partition(b"[")[0].count(b",")
        depth = lowest + opening
        if max(self._depth, depth) + height > MAX_DEPTH:
            self._check_depth(brackets)
        self._depth = depth
        self._element_bytes = 0 if marks and lowest <= _ARRAY_DEPTH else self._element_bytes + size
        if self._element_bytes > MAX_ELEMENT_BYTES:
            raise BadFile(f"expected records of at most {MAX_ELEMENT_BYTES} bytes, got a longer one")

    def _check_depth(self, brackets: bytes) -> None:
        """Follows each bracket: the rounds of _without_pairs() give only an upper limit of the depth."""
        depth = self._depth
        for mark in brackets:
            depth += (mark in b"[") - (mark in b"]")
            if depth > MAX_DEPTH:
                raise BadFile(f"expected at most {MAX_DEPTH} levels of nesting, got more")

    def _look_for_end(self, marks: bytes) -> None:
        """Counts commas up to the array's closing bracket, and keeps the marks after it."""
        depth = self._depth
        for index, mark in enumerate(marks):
            depth += (mark in b"[{") - (mark in b"]}")
            if depth == _ARRAY_DEPTH and mark in b",":
                self._commas += 1
            if depth == _ARRAY_DEPTH - 1 and mark in b"]}":
                self._closed = True
                self._tail = marks[index + 1 :][: len(_TAIL) + 1]
                return


class Surrogates:
    r"""Refuses half of a surrogate pair (\ud83d without \ude00), which the parser would replace by "?"."""

    _ESCAPE = re.compile(
        rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(?P<half>u[dD][89a-fA-F]..)|u.{4}|[^u])", re.DOTALL
    )
    #: Bytes of a pair: a shorter rest may be the beginning of one.
    _PAIR = 12
    _MESSAGE = "expected Unicode text, got half of a surrogate pair"

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Raises BadFile at the first half without its other half."""
        text = self._rest + chunk
        self._rest = b""
        if b"\\" in text:
            self._rest = text[self._first_unfinished(text) :]

    def finish(self) -> None:
        """Raises BadFile if the document ends with a half."""
        if self._ESCAPE.match(self._rest):
            raise BadFile(self._MESSAGE)

    def _first_unfinished(self, text: bytes) -> int:
        """Returns where an escape begins that the next chunk must complete, or the text's length."""
        end = 0
        for match in self._ESCAPE.finditer(text):
            if match["half"] and len(text) - match.start() >= self._PAIR:
                raise BadFile(self._MESSAGE)
            if match["half"]:
                return match.start()
            end = match.end()
        start = text.find(b"\\", end)
        return len(text) if start < 0 else start


def _without_pairs(brackets: bytes) -> tuple[bytes, int]:
    """Removes matching brackets, the innermost first, and counts the rounds: one for each level.

    The commas between brackets are removed with the pair around them.
    """
    for height in range(MAX_DEPTH + 1):
        shorter = _LIST.sub(b"[]", brackets) if b"[," in brackets else brackets
        shorter = shorter.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            return brackets, height
        brackets = shorter
    return brackets, MAX_DEPTH + 1
