"""Notifications about objects that have arrived in a bucket, in each envelope that they come in."""

from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import unquote_plus

from msgspec import DecodeError, Raw, Struct, field, json


class Arrival(Struct, frozen=True):
    """An object that has arrived, or that is back from an archive."""

    bucket: str
    key: str
    size: int = 0


class _Named(Struct, frozen=True):
    name: str


class _Keyed(Struct, frozen=True):
    key: str
    size: int = 0


class _Entity(Struct, frozen=True):
    bucket: _Named
    object: _Keyed


class _Record(Struct, frozen=True):
    """An event of S3 itself: in its key a blank is a plus sign, and other characters are %XX."""

    event: str = field(name="eventName", default="")
    entity: _Entity | None = field(name="s3", default=None)


class _Message(Struct, frozen=True):
    """Any message: events of S3, an event of EventBridge, or an envelope of SNS with one of them."""

    records: list[Raw] = field(name="Records", default=[])
    enclosed: str = field(name="Message", default="")
    event: str = field(name="detail-type", default="")
    entity: _Entity | None = field(name="detail", default=None)


#: Servers of others put "s3:" before them.
_RECORDS = ("ObjectCreated:", "ObjectRestore:Completed")
_EVENTS = ("Object Created", "Object Restore Completed")


def arrivals(text: str) -> list[Arrival]:
    """Returns the objects that a notification says have arrived; none if it says nothing of the kind."""
    try:
        message = json.decode(text, type=_Message)
    except (DecodeError, RecursionError, UnicodeEncodeError):
        return []
    if message.enclosed:
        return arrivals(message.enclosed)
    if message.entity is not None and message.event in _EVENTS:  # the only one whose key is as it is
        return [_arrival(message.entity, message.entity.object.key)]
    return [
        _arrival(record.entity, unquote_plus(record.entity.object.key))
        for record in _readable(message.records)
        if record.entity is not None and record.event.removeprefix("s3:").startswith(_RECORDS)
    ]


def _readable(records: list[Raw]) -> Iterator[_Record]:
    """Yields the records that can be read: one that is odd says nothing about the others."""
    for record in records:
        with suppress(DecodeError):
            yield json.decode(record, type=_Record)


def _arrival(entity: _Entity, key: str) -> Arrival:
    return Arrival(entity.bucket.name, key, entity.object.size)
