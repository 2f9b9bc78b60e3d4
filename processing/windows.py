"""Reads a document by windows of whole elements, for as long as each is exactly as documented.

A window is decoded straight into typed records, in a fifth of the time that it takes the parser of
documents to make them. That a window was cut between two elements needs no proof of its own: cut
anywhere else it would not decode.
"""

import re
from collections import deque
from collections.abc import Iterator
from functools import cache

from msgspec import Struct

from processing.records import Kind, Parsed
from processing.text import Readable

#: Bytes read at a time.
WINDOW_BYTES = 256 * 1024

#: Bytes in which an element must end.
_MAX_ELEMENT_BYTES = 4 * WINDOW_BYTES

#: Bytes in which a separator of elements is looked for first: one is found there, unless they are large.
_NEAR_END = 4 * 1024

HEAD = re.compile(rb'\s*\{\s*"([A-Za-z0-9_]+)"\s*:\s*\[')
_TAIL = re.compile(rb"\]\s*\}\s*")


class Windows:
    """One pass over a document, the first bytes of which have been read already.

    It ends at the first thing that is not as documented. elements counts those that were given back;
    is_whole tells whether they were all.
    """

    def __init__(self, head: bytes, text: Readable, kind: Kind) -> None:
        self.elements = 0
        self.is_whole = False
        self._head = head
        self._text = text
        self._kind = kind
        self._records = 0
        self._separator = _separator(kind.element)

    def parsed(self) -> Iterator[Parsed]:
        """The elements in order, those of a window together; raises what the text's read() raises."""
        head = HEAD.match(self._head)
        if head is None:
            return
        rest = self._head[head.end() :]
        while text := self._text.read(WINDOW_BYTES):
            window, rest = self._cut(rest + text)
            parsed = self._parse(window)
            if parsed is None or len(rest) > _MAX_ELEMENT_BYTES:
                return
            if parsed.records:
                yield parsed
        tail = _TAIL.fullmatch(rest, max(0, rest.rfind(b"]")))
        parsed = self._parse(rest[: tail.start()]) if tail else None
        if parsed is not None:
            self.is_whole = True
            if parsed.records:
                yield parsed

    def _cut(self, text: bytes) -> tuple[bytes, bytes]:
        """Whole elements, and the rest behind the separator."""
        found = self._last_separator(text, max(0, len(text) - _NEAR_END)) or self._last_separator(text, 0)
        return (text[: found.start() + 1], text[found.end() :]) if found else (b"", text)

    def _last_separator(self, text: bytes, start: int) -> re.Match[bytes] | None:
        last = deque(self._separator.finditer(text, start), maxlen=1)
        return last[0] if last else None

    def _parse(self, window: bytes) -> Parsed | None:
        array = b"[%b]" % window
        usual = self._kind.read_usual(array)
        if usual is None:
            return None
        elements, records = usual
        parsed = Parsed(self.elements, self._records, array, records, [])
        self.elements += elements
        self._records += len(records)
        return parsed


@cache
def _separator(element: type[Struct]) -> re.Pattern[bytes]:
    """What stands between two elements; the key behind it tells it from what stands within one."""
    keys = "|".join(element.__struct_fields__)
    return re.compile(rb'\}\s*,\s*(?=\{\s*"(?:%b)")' % keys.encode())
