"""Detection of keys that are too long for the usual parser, and a parser that can read them."""

import re
from collections.abc import Iterator
from decimal import InvalidOperation
from typing import Any

from ijson.backends import yajl2_c
from ijson.common import JSONError
from ijson.utils import sendable_list

from processing.json_limits import JsonLimits
from processing.source import CHUNK_BYTES
from processing.text import Readable
from processing.validation import UniqueKeys

#: Keys are long from here on; some are noticed only at twice this length, which is harmless.
_LONG = 512

#: Nesting depth of the array's elements.
_ARRAY_DEPTH = 2

_BLANKS = b" \t\r\n"
_END_OF_KEY = re.compile(rb'"[ \t\r\n]*+:')


class LongKeys:
    """Detects long keys in the chunks of one document, which are given in order."""

    def __init__(self) -> None:
        self._tail = b""

    def found_in(self, chunk: bytes, opening: bytes, limits: JsonLimits) -> bool:
        """Returns whether a long key ends in the chunk; opening is limits.opening from before it was fed."""
        if opening.endswith(b"\\"):
            chunk = chunk[1:]
        if b"\\" in chunk:
            chunk = chunk.replace(b"\\\\", b"..").replace(b'\\"', b"..")
        text = self._tail + chunk
        self._tail = (text if limits.opening else text.rstrip(_BLANKS))[-2 * _LONG :]
        # A string of twice the length covers one of these blocks whole, with no quote in it.
        starts = range(0, len(text) - _LONG + 1, _LONG)
        if all(b'"' in text[start : start + _LONG] for start in starts):  # nearly always
            return False
        ends = (match.start() for match in _END_OF_KEY.finditer(text, _LONG))
        return any(b'"' not in text[end - _LONG : end] for end in ends)


def built_carefully(text: Readable) -> Iterator[Any]:
    """Yields the elements of the array; their objects are UniqueKeys, which remember repeated keys.

    ijson's items() builds the path to each object anew, so its time is the number of objects times the length
    of a path: with long keys it practically never ends. Its builder needs no path within an element.
    """
    built = sendable_list()
    builder = yajl2_c.items_basecoro(built, _Places.ELEMENT, map_type=UniqueKeys)
    parser = yajl2_c.basic_parse_coro(_Places(builder))
    failure = None
    while failure is None and (chunk := text.read(CHUNK_BYTES)):
        try:
            parser.send(chunk)
        except (JSONError, UnicodeDecodeError, InvalidOperation) as error:
            failure = error
        yield from built
        built.clear()
    if failure:
        raise failure
    parser.close()


class _Places:
    """Passes events to the builder with a constant path: one for elements of the array, none for the rest."""

    ELEMENT = "element"

    def __init__(self, builder: Any) -> None:
        self._send = builder.send
        self._depth = 0

    def send(self, event: tuple[str, Any]) -> None:
        name, value = event
        if name.startswith("end"):
            self._depth -= 1
        self._send((self.ELEMENT if self._depth == _ARRAY_DEPTH else "", name, value))
        if name.startswith("start"):
            self._depth += 1

    def close(self) -> None: ...
