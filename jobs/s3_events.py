"""Reads the events by which AWS Lambda learns of new objects: S3's own, alone or as messages of a queue."""

from collections.abc import Iterator
from json import dumps

from msgspec import Struct, ValidationError, convert, field

from processing.printable import printable
from sources.notifications import Arrival, arrivals

#: Characters of an event that are shown.
_SHOWN = 200


class Item(Struct, frozen=True):
    """An object that has arrived, with the id by which its message is given back if it came from a queue."""

    arrival: Arrival
    message: str | None = None


class Call(Struct, frozen=True):
    """An invocation: what has arrived, and the parts of its event that say nothing of the kind."""

    items: list[Item]
    passed_over: list[str]
    is_from_queue: bool


class _Message(Struct, frozen=True):
    id: str = field(name="messageId")
    body: str
    source: str = field(name="eventSource", default="")


def read(event: object) -> Call:
    """Returns what an event asks for; whatever it is, nothing in it is an error."""
    messages = list(_messages(event))
    notices: dict[str | None, str] = {message.id: message.body for message in messages}
    items: list[Item] = []
    passed_over = []
    # Not msgspec's: it takes neither half of a surrogate pair nor every number that an event may have.
    for message, text in (notices or {None: dumps(event)}).items():
        found = [Item(arrival, message) for arrival in arrivals(text)]
        items += found
        if not found:
            passed_over.append(printable(text[:_SHOWN]))
    return Call(items, passed_over, bool(messages))


def _messages(event: object) -> Iterator[_Message]:
    records = event.get("Records") if isinstance(event, dict) else None
    for record in records if isinstance(records, list) else []:
        try:
            message = convert(record, _Message)
        except ValidationError:
            continue
        if message.source == "aws:sqs":
            yield message
