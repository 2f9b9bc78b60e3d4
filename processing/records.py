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
    """What some elements of a file's array, one behind the other, became: records, and those rejected.

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
        """About what it takes to hold it."""
        return self.extra_bytes + (len(self.source) if isinstance(self.source, bytes) else 0)

    def elements(self) -> list[Any]:
        """The elements as they stand in the file."""
        if isinstance(self.source, Raw):
            return [loads(bytes(self.source), parse_float=Decimal, parse_int=Decimal)]
        return json.decode(self.source) if isinstance(self.source, bytes) else [self.source]


@dataclass(frozen=True)
class Kind:
    """A kind of file: how its names begin, the key its array stands under, what reads it.

    element has the fields of an array element. parse takes elements of any form; read_usual takes the
    text of some and gives back their number and records, or None unless each is exactly as
    documented, but for a key that comes twice: usual_strings says how many strings, keys included, so many
    elements and records have otherwise. origins gives back the JSON path and the original of records, by the
    places at which they stand in their elements, in order: for rejects found only when they are written.
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
