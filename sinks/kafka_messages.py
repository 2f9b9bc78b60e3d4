"""Turns parsed elements into messages: one for each element, exactly as it stood in its file.

An element of which only a part can be published goes record by record, each as an element of its own.
"""

from collections.abc import Iterator
from datetime import datetime
from operator import attrgetter
from typing import Any

from msgspec import Raw, Struct, json
from msgspec.structs import replace

from processing.records import Kind, Parsed, Record, Rejected
from processing.sink import Delivery
from processing.validation import to_json

#: The version of the messages' format, in a header of each.
FORMAT = "1"
HEADERS: list[tuple[str, str | bytes | None]] = [("format", FORMAT.encode())]

#: Bytes that a message takes beside key and value: its header, and that of a batch that it is alone in.
OVERHEAD = 256

#: Bytes of the longest key, that of a vehicle's name with 255 characters.
_LONGEST_KEY = 4 * 255


#: The key and the value of a message of a kind's topic.
Message = tuple[str, bytes]


class _Keyed(Struct):
    """The part of an element that is a message's key."""

    vehicle_id: str


_TEXTS = json.Decoder(list[Raw])
_KEYS = json.Decoder(list[_Keyed])


class Writer:
    """Turns the elements of one file into messages and rejects."""

    def __init__(self, kind: Kind, topic: str, largest: int, latest: datetime | None, hours: float) -> None:
        """Rejects what is dated later than latest, which is so many hours ahead of the clock."""
        self._kind = kind
        self._topic = topic
        self._largest = largest
        self._latest = latest
        self._hours = hours
        self._time_of = attrgetter(kind.record.__struct_fields__[1])

    def write_block(self, block: Parsed) -> list[Message] | None:
        """Returns a message for each of some elements; None if not all of them can be published whole."""
        if any(map(self._is_late, block.records)):
            return None
        messages = _of_block(block)
        all_fit = self._fits(block.source) or all(self._fits(value) for _, value in messages)
        return messages if all_fit else None

    def write(self, parsed: Parsed) -> tuple[list[Message], list[Rejected]]:
        """Returns the messages and rejects of one element."""
        if not parsed.rejected and not any(map(self._is_late, parsed.records)):
            message = _whole(parsed)
            if self._fits(message[1]):
                return [message], []
        rejected = [*parsed.rejected]
        places = _places(parsed)
        origins = self._kind.locate(parsed, places)
        messages = []
        for record, place, (path, original) in zip(parsed.records, places, origins, strict=True):
            value = to_json(original).encode()
            if (flaw := self._flaw(record, value)) is None:
                messages.append((record.vehicle_id, value))
            else:
                rejected.append(Rejected(parsed.position + place, path, *flaw, original))
        return messages, sorted(rejected, key=lambda reject: reject.position)

    def _flaw(self, record: Record, value: bytes) -> tuple[str, str] | None:
        """Returns the reason and the detail if a record can't be published."""
        if self._is_late(record):
            return "invalid", f"Expected a time at most {self._hours:g} hours ahead, got a later one"
        if not self._fits(value):
            most = f"{self._largest} bytes (max.message.bytes of {self._topic})"
            return "refused", f"Expected a record of at most {most}, got {len(value)}"
        return None

    def _is_late(self, record: Record) -> bool:
        return self._latest is not None and self._time_of(record) > self._latest

    def _fits(self, value: bytes) -> bool:
        return len(value) + _LONGEST_KEY + OVERHEAD <= self._largest


def is_block(parsed: Parsed) -> bool:
    """Returns whether these may be several elements."""
    return isinstance(parsed.source, bytes)


def apart(kind: Kind, block: Parsed) -> Iterator[Parsed]:
    """Yields the elements of a block, one by one."""
    for one in kind.parse(block.elements()):
        yield replace(one, index=block.index + one.index, position=block.position + one.position)


def _of_block(block: Parsed) -> list[Message]:
    keys, texts = _KEYS.decode(block.source), _TEXTS.decode(block.source)
    return [(key.vehicle_id, bytes(text)) for key, text in zip(keys, texts, strict=True)]


def _whole(parsed: Parsed) -> Message:
    source = parsed.source
    return _key(parsed), bytes(source) if isinstance(source, Raw) else to_json(source).encode()


def _key(parsed: Parsed) -> str:
    """Returns the key of an element, which may have no record."""
    if parsed.records:
        return parsed.records[0].vehicle_id
    (element,) = parsed.elements()
    return str(element["vehicle_id"])


def _places(parsed: Parsed) -> list[int]:
    """Returns the places of the records among the records and rejects of an element."""
    taken = {rejected.position - parsed.position for rejected in parsed.rejected}
    return [place for place in range(len(parsed.records) + len(taken)) if place not in taken]


def reject_value(delivery: Delivery, kind: Kind, rejected: Rejected) -> bytes:
    """Returns the message of a reject: the record as it was, where it stood, and why it is not published."""
    fields: dict[str, Any] = {
        "file": delivery.name,
        "sha256": (delivery.sha256 or b"").hex(),
        "kind": kind.name,
        "position": rejected.position,
        "path": rejected.path,
        "reason": rejected.reason,
        "detail": rejected.detail,
        "original": rejected.original,
    }
    return b"{%b}" % b",".join(
        b'"%b":%b' % (name.encode(), to_json(value).encode()) for name, value in fields.items()
    )
