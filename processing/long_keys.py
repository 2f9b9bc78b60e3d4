"""Keys so long that the parser would take for ever over them, and how a document with such is read."""

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

#: A key up to twice as long does no harm.
_LONG = 512

#: How deep the elements stand.
_ARRAY_DEPTH = 2

_BLANKS = b" \t\r\n"
_END_OF_KEY = re.compile(rb'"[ \t\r\n]*+:')


class LongKeys:
    """Looks for them in the chunks of one document, in order."""

    def __init__(self) -> None:
        self._tail = b""

    def found_in(self, chunk: bytes, opening: bytes, structure: JsonLimits) -> bool:
        """Whether one ends in a chunk, before which and behind which the structure stood so."""
        if opening.endswith(b"\\"):
            chunk = chunk[1:]
        if b"\\" in chunk:
            chunk = chunk.replace(b"\\\\", b"..").replace(b'\\"', b"..")
        text = self._tail + chunk
        self._tail = (text if structure.opening else text.rstrip(_BLANKS))[-2 * _LONG :]
        starts = range(0, len(text) - _LONG + 1, _LONG)
        if all(b'"' in text[start : start + _LONG] for start in starts):  # nearly always
            return False
        ends = (match.start() for match in _END_OF_KEY.finditer(text, _LONG))
        return any(b'"' not in text[end - _LONG : end] for end in ends)


def built_carefully(text: Readable) -> Iterator[Any]:
    """The elements of the array, repeated keys in them told.

    items() makes the path to each object anew, in time that is the product of their number and of its length:
    where keys are long that never ends. The builder behind it asks for no path within an element.
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
    """Passes events on to the builder with a place: of an element in the array, or none."""

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
