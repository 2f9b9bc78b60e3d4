"""Turns parsed elements into messages: one for each element, exactly as it stood in its file.

An element of which only a part can be published goes record by record, each as an element of its own.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Raw, Struct, json
from msgspec.structs import replace

from processing.records import Kind, Parsed, Record, Rejected
from processing.sink import Delivery
from processing.validation import to_json

#: The version of the messages' format, in a header of each.
FORMAT = "1"
HEADERS: list[tuple[str, str | bytes | None]] = [("format", FORMAT)]

#: Bytes that a message takes beside key and value: its header, and that of a batch that it is alone in.
OVERHEAD = 256

#: Bytes of the longest key, that of a vehicle's name with 255 characters.
_LONGEST_KEY = 4 * 255


class Message(NamedTuple):
    """A message of a kind's topic."""

    key: str
    value: bytes


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
        self._time = kind.record.__struct_fields__[1]

    def write(self, parsed: Parsed) -> tuple[list[Message], list[Rejected]]:
        """Returns the messages and rejects of one element, or of some that are good."""
        if not parsed.rejected and not any(map(self._is_late, parsed.records)):
            messages = _whole(parsed)
            if all(map(self._fits, messages)):
                return messages, []
        rejected = [*parsed.rejected]
        places = _places(parsed)
        origins = self._kind.locate(parsed, places)
        messages = []
        for record, place, (path, original) in zip(parsed.records, places, origins, strict=True):
            message = Message(record.vehicle_id, to_json(original).encode())
            if (flaw := self._flaw(record, message)) is None:
                messages.append(message)
            else:
                rejected.append(Rejected(parsed.position + place, path, *flaw, original))
        return messages, sorted(rejected, key=lambda reject: reject.position)

    def is_good(self, parsed: Parsed) -> bool:
        """Returns whether some elements become a message each, as far as that can be told at a glance."""
        return not any(map(self._is_late, parsed.records)) and not (
            len(parsed.source) > self._largest and any(not self._fits(found) for found in _whole(parsed))
        )

    def _flaw(self, record: Record, message: Message) -> tuple[str, str] | None:
        """Returns the reason and the detail if a record can't be published."""
        if self._is_late(record):
            return "invalid", f"Expected a time at most {self._hours:g} hours ahead, got a later one"
        if not self._fits(message):
            most = f"{self._largest} bytes (max.message.bytes of {self._topic})"
            return "refused", f"Expected a record of at most {most}, got {len(message.value)}"
        return None

    def _is_late(self, record: Record) -> bool:
        return self._latest is not None and getattr(record, self._time) > self._latest

    def _fits(self, message: Message) -> bool:
        return len(message.value) + _LONGEST_KEY + OVERHEAD <= self._largest


def is_block(parsed: Parsed) -> bool:
    """Returns whether these may be several elements."""
    return isinstance(parsed.source, bytes)


def apart(kind: Kind, block: Parsed) -> Iterator[Parsed]:
    """Yields the elements of a block, one by one."""
    for one in kind.parse(block.elements()):
        yield replace(one, index=block.index + one.index, position=block.position + one.position)


def _whole(parsed: Parsed) -> list[Message]:
    if is_block(parsed):
        keys = _KEYS.decode(parsed.source)
        texts = _TEXTS.decode(parsed.source)
        return [Message(key.vehicle_id, bytes(text)) for key, text in zip(keys, texts, strict=True)]
    value = bytes(parsed.source) if isinstance(parsed.source, Raw) else to_json(parsed.source).encode()
    return [Message(_key(parsed), value)]


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
