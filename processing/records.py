"""The types that all kinds of file share: records, rejects, parsed elements, and the kind itself."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from json import loads
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Meta, Raw, Struct, json

#: Longest text of a key: an index entry of PostgreSQL must fit a third of an 8 kB page.
MAX_TEXT = 255

Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
#: An instant: a time without an offset is refused, since guessing a zone corrupts silently.
Instant = Annotated[datetime, Meta(tz=True)]


class Record(Struct, frozen=True, gc=False):
    """A row of a table; the record of a kind adds a time, at least one field more, and extra."""

    vehicle_id: str

    if TYPE_CHECKING:  # as a field here it would come before those of the kind

        @property
        def extra(self) -> str | None:
            """The unknown fields as JSON."""


class Reason(StrEnum):
    """The reasons of a reject.

    Its form or a value is wrong; another record is stored under its key; the database does not take it.
    """

    INVALID = "invalid"
    CONFLICT = "conflict"
    REFUSED = "refused"


class Rejected(Struct, frozen=True):
    """A record that can't be loaded.

    position counts the records of the file from 0; original is the record as JSON, a large one as its text,
    that could be dropped again in a file of its own array.
    """

    position: int
    path: str
    reason: str
    detail: str
    original: Any


class Parsed(Struct, frozen=True, gc=False):
    """Result of parsing consecutive elements of a file's array: records, and rejects.

    index and position are those of the first element and the first record. source is the only element, its
    JSON text if it is large, or the JSON text of all elements. keys counts the keys of a single element.
    extra_bytes is the approximate size of the data without a limit: the element, unknown fields and rejected
    originals. count is the number of elements, empty that of those without a record, such as an event without
    detections.
    """

    index: int
    position: int
    source: Any
    records: list[Record]
    rejected: list[Rejected]
    keys: int = 0
    extra_bytes: int = 0
    count: int = 1
    empty: int = 0

    @property
    def bytes(self) -> int:
        """Approximate number of bytes that it takes in memory."""
        return self.extra_bytes + (len(self.source) if isinstance(self.source, bytes) else 0)

    def elements(self) -> list[Any]:
        """The elements as in the file."""
        if isinstance(self.source, Raw):
            return [loads(bytes(self.source), parse_float=Decimal, parse_int=Decimal)]
        return json.decode(self.source) if isinstance(self.source, bytes) else [self.source]


class Decoded(NamedTuple):
    """The records of some elements that are exactly as documented; empty counts those without a record."""

    elements: int
    records: list[Record]
    empty: int = 0


@dataclass(frozen=True)
class Kind:
    """A kind of file: the beginning of its names, the key of its array, and the functions that read it.

    `element` has the fields of an array element. `parse` takes elements of any form. `decode_fast` takes the
    text of some elements; it returns None unless each is exactly as documented.
    It does not notice a repeated key: `fast_strings` returns how many strings, keys included, that many
    elements and records have otherwise. `locate` yields the JSON path and the original of records, by their
    places in the elements, in order: for rejects that are found only when rows are written.
    """

    name: str
    prefix: str
    key: str
    element: type[Struct]
    record: type[Record]
    parse: Callable[[Iterable[Any]], Iterator[Parsed]]
    decode_fast: Callable[[bytes], Decoded | None]
    fast_strings: Callable[[int, int], int]
    locate: Callable[[Parsed, Iterable[int]], Iterator[tuple[str, Any]]]
