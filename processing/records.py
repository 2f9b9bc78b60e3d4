"""The typed records; the order of their fields is the order of their table's columns."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from json import loads
from typing import Annotated, Any

from msgspec import Meta, Raw, Struct, json

#: Longest text of a key: an index entry of PostgreSQL must fit a third of an 8 kB page.
MAX_TEXT = 255

Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
#: An instant: a time without an offset is refused, since guessing a zone corrupts silently.
Instant = Annotated[datetime, Meta(tz=True)]


class Detection(Struct, frozen=True, gc=False):
    """One object type counted in one event: a row of objects_detection_events."""

    vehicle_id: str
    detection_time: datetime
    object_type: str
    object_value: int
    extra: str | None


class StatusReport(Struct, frozen=True, gc=False):
    """One report of one vehicle: a row of vehicle_status_history."""

    vehicle_id: str
    report_time: datetime
    status: str
    extra: str | None


Record = Detection | StatusReport


class Rejected(Struct, frozen=True):
    """One record that can't be loaded.

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

    index and position are those of the first element and the first record; source is the only element,
    its JSON text if it is large, or the JSON text of all; keys counts the keys in the only element,
    loose_bytes is about the size of what is held besides a text of all: the element, unknown fields and
    rejected originals; count is the number of the elements.
    """

    index: int
    position: int
    source: Any
    records: list[Record]
    rejected: list[Rejected]
    keys: int = 0
    extra_bytes: int = 0
    count: int = 1

    @property
    def bytes(self) -> int:
        """Approximate number of bytes that it takes in memory."""
        return self.extra_bytes + (len(self.source) if isinstance(self.source, bytes) else 0)

    def elements(self) -> list[Any]:
        """The elements as they stand in the file."""
        if isinstance(self.source, Raw):
            return [loads(bytes(self.source), parse_float=Decimal, parse_int=Decimal)]
        return json.decode(self.source) if isinstance(self.source, bytes) else [self.source]


@dataclass(frozen=True)
class Kind:
    """A kind of file: how its names begin, the key its array stands under, what reads it.

    `element` has the fields of an array element. `parse` takes elements of any form. `decode_fast` takes the
    text of some elements; it returns their number and records, or None unless each is exactly as documented.
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
    decode_fast: Callable[[bytes], tuple[int, list[Record]] | None]
    fast_strings: Callable[[int, int], int]
    locate: Callable[[Parsed, Iterable[int]], Iterator[tuple[str, Any]]]
