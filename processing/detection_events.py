"""Reads detection events: one array element holds the detections of one vehicle at one time."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from processing.records import Decoded, Instant, Int32, Kind, Parsed, Record, Rejected, Text
from processing.spellings import read_as
from processing.validation import (
    Invalid,
    check_text,
    check_year,
    count_keys,
    extra_bytes,
    extra_json,
    held,
    is_common_year,
    is_plain,
    to_json,
    unknown_fields,
)

KEY = "objects_detection_events"

#: What the unknown fields of an event may take, which are kept with each of its detections.
MAX_SHARED_BYTES = 16 * 1024 * 1024


#: What the wrong detections of an event may take, each kept with what is left of its event.
MAX_REJECTED_BYTES = 1024 * 1024


class Detection(Record, frozen=True, gc=False):
    """One object type counted in one event: a row of objects_detection_events."""

    detection_time: datetime
    object_type: str
    object_value: int
    extra: str | None


class Counted(Struct, gc=False):
    """One entry of an event's detections, as it stands in the file."""

    object_type: Text
    object_value: Int32


class Event(Struct):
    """One array element, as it stands in the file."""

    vehicle_id: Text
    detection_time: Instant
    detections: list[Counted]


class FastCounted(Counted, gc=False, forbid_unknown_fields=True):
    """A detection with no other fields."""


class FastEvent(Event, forbid_unknown_fields=True):
    """An event with no other fields."""

    detections: list[FastCounted]  # type: ignore[assignment]


class Header(Struct):
    """An event whose detections are still to be looked at one by one."""

    vehicle_id: Text
    detection_time: Instant
    detections: list[Any]


def decode_fast(array: bytes) -> Decoded | None:
    """The number and records of events, from their text; None unless each is as documented."""
    try:
        events = _FAST.decode(array)
    except (DecodeError, UnicodeDecodeError):
        return None
    records: list[Record] = [
        Detection(event.vehicle_id, event.detection_time, counted.object_type, counted.object_value, None)
        for event in events
        for counted in event.detections
    ]
    common = all(map(is_common_year, [event.detection_time for event in events]))
    empty = sum([not event.detections for event in events])
    return Decoded(len(events), records, empty) if is_plain(array) and common else None


def fast_strings(events: int, detections: int) -> int:
    """An event has 3 keys and 2 texts, a detection 2 keys and a text."""
    return 5 * events + 3 * detections


_FAST = Decoder(list[FastEvent])


def parse(items: Iterable[Any]) -> Iterator[Parsed]:
    """Each element of the array as records and rejects."""
    position = 0
    for index, item in enumerate(items):
        parsed = read_event(index, position, item)
        position += len(parsed.records) + len(parsed.rejected)
        del item  # it may be large, and so may the next
        yield parsed


def read_event(index: int, position: int, item: Any) -> Parsed:
    """One event, as a whole if it is flawless, else detection by detection."""
    try:
        records, keys = flawless(item)
    except Invalid:
        records, rejected, originals = one_by_one(index, position, item)
        keys = count_keys(item)
    else:
        rejected, originals = [], 0
    loose = originals if keys == 3 + 2 * len(records) else originals + extra_bytes(records)
    source = held(item, loose + _KEY_BYTES * keys)
    empty = int(not records and not rejected)
    return Parsed(index, position, source, records, rejected, keys, loose, empty=empty)


#: What a key and its value take at least, about.
_KEY_BYTES = 10


def flawless(item: Any) -> tuple[list[Record], int]:
    """Returns all records of an event, and its number of keys; raises Invalid."""
    event = read_as(Event, item)
    vehicle_id, time = event.vehicle_id, event.detection_time
    check_text(vehicle_id, ".vehicle_id")
    check_year(time, ".detection_time")
    for counted in event.detections:
        if "\0" in counted.object_type:  # a call for each detection would be dear
            check_text(counted.object_type, ".object_type")
    sources = item["detections"]
    keys = len(item) + sum(map(len, sources))
    if keys == 3 + 2 * len(sources) and type(item) is dict:
        return [
            Detection(vehicle_id, time, counted.object_type, counted.object_value, None)
            for counted in event.detections
        ], keys
    shared = shared_fields(item)
    return [
        detection(vehicle_id, time, counted, source, shared)
        for counted, source in zip(event.detections, sources, strict=True)
    ], count_keys(item)


def shared_fields(item: Mapping[str, Any]) -> dict[str, Any]:
    """The unknown fields of an event; raises Invalid where their copies would fill the memory."""
    shared = unknown_fields(item, Event.__struct_fields__)
    if shared and len(to_json(shared)) * len(item["detections"]) > MAX_SHARED_BYTES:
        raise Invalid(
            f"Expected unknown fields of at most {MAX_SHARED_BYTES} bytes for all detections, got more"
        )
    return shared


def detection(
    vehicle_id: str, time: datetime, counted: Counted, source: Mapping[str, Any], shared: Mapping[str, Any]
) -> Record:
    """One record; unknown fields of its event are kept with its own."""
    extra = merged(unknown_fields(source, Counted.__struct_fields__), shared)
    return Detection(vehicle_id, time, counted.object_type, counted.object_value, extra_json(extra))


def merged(own: dict[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Unknown fields of a detection and of its event; where names clash, the event's is prefixed."""
    for name, value in shared.items():
        while name in own:
            name = f"event.{name}"
        own[name] = value
    return own


def one_by_one(index: int, position: int, item: Any) -> tuple[list[Record], list[Rejected], int]:
    """An event with a flaw: what can be loaded of it, the rest with reasons, and their originals' size."""
    path = f"$.{KEY}[{index}]"
    try:
        return parts(path, position, item)
    except Invalid as flaw:
        size = len(to_json(item))
        whole = Rejected(position, path + flaw.path, "invalid", flaw.detail, held(item, size))
        return [], [whole], size


def parts(path: str, position: int, item: Any) -> tuple[list[Record], list[Rejected], int]:
    """The detections of an event, each by itself; raises Invalid if only all of it can be rejected."""
    header, shared = read_header(item)
    repeated = len(to_json(alone(item, None)))
    records: list[Record] = []
    rejected: list[Rejected] = []
    size = 0
    for number, source in enumerate(header.detections):
        try:
            records.append(read_detection(header, source, shared))
        except Invalid as flaw:
            size += repeated + len(to_json(source))
            if rejected and size > MAX_REJECTED_BYTES:
                raise Invalid(
                    f"Expected wrong detections of at most {MAX_REJECTED_BYTES} bytes, each with its event, "
                    f"got more; the first: {rejected[0].detail}",
                    ".detections",
                ) from None
            where = f"{path}.detections[{number}]{flaw.path}"
            rejected.append(Rejected(position + number, where, "invalid", flaw.detail, alone(item, source)))
    return records, rejected, size


def read_header(item: Any) -> tuple[Header, dict[str, Any]]:
    """Returns the fields that all detections of an event share, and its unknown ones; raises Invalid."""
    header = read_as(Header, item)
    check_text(header.vehicle_id, ".vehicle_id")
    check_year(header.detection_time, ".detection_time")
    return header, shared_fields(item)


def read_detection(header: Header, source: Any, shared: Mapping[str, Any]) -> Record:
    """One detection of an event; raises Invalid."""
    counted = read_as(Counted, source)
    check_text(counted.object_type, ".object_type")
    return detection(header.vehicle_id, header.detection_time, counted, source, shared)


def alone(item: dict[str, Any], source: Any) -> dict[str, Any]:
    """The event as if it held this one detection: it can be loaded again by itself."""
    event = type(item)()
    event.update(item, detections=[source])
    return event


def locate(parsed: Parsed, offsets: Iterable[int]) -> Iterator[tuple[str, Any]]:
    """JSON path and original of detections, by their places in their events, in order."""
    elements = enumerate(parsed.elements(), parsed.index)
    first = end = 0
    for offset in offsets:
        while offset >= end:
            index, element = next(elements)
            first, end = end, end + len(element["detections"])
        number = offset - first
        path = f"$.{KEY}[{index}].detections[{number}]"
        yield path, alone(element, element["detections"][number])


KIND = Kind(
    "objects_detection",
    "objects_detection_",
    KEY,
    Event,
    Detection,
    parse,
    decode_fast,
    fast_strings,
    locate,
)
