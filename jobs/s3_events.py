"""Reads the events by which AWS Lambda learns of new objects: S3's own, alone or as messages of a queue."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from msgspec import DecodeError, Struct, ValidationError, convert, field, json

from processing.printable import printable

#: An object arrived, or came back from an archive.
_ARRIVALS = ("ObjectCreated:", "ObjectRestore:Completed")


class Arrival(Struct, frozen=True):
    """One object that arrived; from a queue with the id by which its message is given back."""

    bucket: str
    key: str
    message: str | None = None


class Call(Struct, frozen=True):
    """An invocation: what arrived, and why other parts of its event are passed over."""

    arrivals: list[Arrival]
    passed_over: list[str]
    is_from_queue: bool


class _Name(Struct, frozen=True):
    name: str


class _Key(Struct, frozen=True):
    key: str


class _Place(Struct, frozen=True):
    bucket: _Name
    object: _Key


class _Record(Struct, frozen=True):
    place: _Place = field(name="s3")
    name: str = field(name="eventName")


class _Message(Struct, frozen=True):
    id: str = field(name="messageId")
    body: str


def read(event: object) -> Call:
    """Returns what an event asks for; whatever it is, nothing in it is an error."""
    found = [*_of_event(event)]
    return Call(
        [part for part in found if isinstance(part, Arrival)],
        [part for part in found if isinstance(part, str)],
        any(_is_message(record) for record in _records(event)),
    )


def _of_event(event: object) -> Iterator[Arrival | str]:
    for record in _records(event):
        if _is_message(record):
            yield from _of_message(record)
        else:
            yield _of_record(record, None)
    if not _records(event):
        yield _without_records(event)


def _of_message(record: object) -> Iterator[Arrival | str]:
    try:
        message = convert(record, _Message)
        notice = json.decode(message.body)
    except (DecodeError, ValidationError) as error:
        yield f"a message of the queue is no notification of S3: {printable(str(error))}"
        return
    if not _records(notice):
        yield _without_records(notice)
    for part in _records(notice):
        yield _of_record(part, message.id)


def _of_record(record: object, message: str | None) -> Arrival | str:
    try:
        found = convert(record, _Record)
    except ValidationError as error:
        return f"a record is none of S3: {printable(str(error))}"
    if not found.name.startswith(_ARRIVALS):
        return f"{printable(found.name)} is no arrival"
    # S3 writes a space as "+", and what is no letter as "%".
    return Arrival(found.place.bucket.name, unquote_plus(found.place.object.key), message)


def _records(event: object) -> list[Any]:
    records = event.get("Records") if isinstance(event, dict) else None
    return records if isinstance(records, list) else []


def _is_message(record: object) -> bool:
    return isinstance(record, dict) and record.get("eventSource") == "aws:sqs"


def _without_records(event: object) -> str:
    if isinstance(event, dict) and event.get("Event") == "s3:TestEvent":
        return "it is the test event that S3 sends when notifications are set up"
    kind = event.get("detail-type") or event.get("Type") if isinstance(event, dict) else None
    return f"the event has no records{f': {printable(str(kind))}' if kind else ''}"
