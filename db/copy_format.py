"""Records as rows of COPY's binary format: the server takes them in three quarters of the time of text.

See "File Formats" at PostgreSQL's COPY: each value has its length before it, numbers have the most
significant byte first, an instant is microseconds since 2000.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import Any

#: What stands before the rows, and behind them.
START = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"

_NULL = b"\xff\xff\xff\xff"
_FOUR, _EIGHT = (size.to_bytes(4) for size in (4, 8))
_JSONB_VERSION = b"\1"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.date()
_DAY = 86_400_000_000


def in_utc(instant: datetime) -> datetime:
    """Returns the same instant, for SQL text: there PostgreSQL takes no offset of 16 hours or more."""
    return instant if instant.tzinfo is UTC else instant.astimezone(UTC)


def hour_of(instant: datetime) -> int:
    """Returns the hour of an instant, counted from 2000 in UTC."""
    since = instant - _EPOCH
    return since.days * 24 + since.seconds // 3600


class CopyRows:
    """Rows of COPY, and the UTC days of their times, counted from 2000.

    hours has the columns of each row that HourlyCounts counts, by the hour of its time.
    """

    def __init__(self) -> None:
        self.rows: list[bytes] = []
        self.days: set[int] = set()
        self.hours: defaultdict[int, list[bytes]] = defaultdict(list)

    def dates(self) -> list[date]:
        return [_EPOCH_DAY + timedelta(days) for days in sorted(self.days)]

    def time(self, instant: datetime) -> bytes:
        """Returns the eight bytes of an instant, and remembers its day."""
        since = instant - _EPOCH
        days = since.days
        self.days.add(days)
        return (days * _DAY + since.seconds * 1_000_000 + since.microseconds).to_bytes(8, signed=True)


def copy_data(rows: Iterable[bytes]) -> bytes:
    """Returns the rows as COPY takes them."""
    return b"".join([START, *rows, END])


def pack_detections(packed: CopyRows, records: Sequence[Any], file_id: int) -> None:
    head, vehicle, time, hour = b"", None, None, None
    heads, tails = _heads(6), _CountedTails(file_id)
    append = note = packed.rows.append
    for record in records:
        if record.detection_time is not time or record.vehicle_id is not vehicle:  # an event has many
            time, vehicle = record.detection_time, record.vehicle_id
            since = time - _EPOCH  # as in time() and hour_of(), whose calls would cost as much as they do
            days, seconds = since.days, since.seconds
            packed.days.add(days)
            sent = (days * _DAY + seconds * 1_000_000 + since.microseconds).to_bytes(8, signed=True)
            head = heads[vehicle] + sent
            if hour != (its_hour := days * 24 + seconds // 3600):
                hour = its_hour
                note = packed.hours[hour].append
        tail, counted = tails[record.object_type, record.object_value, record.extra]
        append(head + tail)
        note(counted)


def read_counted(counted: bytes) -> tuple[str, int]:
    """Returns the object type and value from their columns."""
    return counted[4:-8].decode(), int.from_bytes(counted[-4:], signed=True)


def pack_reports(packed: CopyRows, records: Sequence[Any], file_id: int) -> None:
    heads, tails = _heads(5), _Tails(file_id)
    append = packed.rows.append
    for record in records:
        head = heads[record.vehicle_id] + packed.time(record.report_time)
        append(head + tails[record.status, record.extra])


def pack_reject(
    file_id: int, position: int, texts: Sequence[str], message: tuple[int, int, bytes | None] | None
) -> bytes:
    """A row of two numbers, some texts, and the place of a message with its bytes; JSON is text."""
    numbers = _EIGHT + file_id.to_bytes(8) + _EIGHT + position.to_bytes(8)
    place = _NULL * 3 if message is None else _message(*message)
    return b"".join([(5 + len(texts)).to_bytes(2), numbers, *map(_text, texts), place])


def key_start(columns: int, vehicle_id: str, time: bytes) -> bytes:
    """Returns the first bytes of rows of that many columns with this vehicle and time (eight bytes)."""
    return _heads(columns)[vehicle_id] + time


class _Heads(dict[str, bytes]):
    """Caches the bytes before the time, by vehicle; is emptied when it has grown too large."""

    _ROOM = 2 * 1024 * 1024
    _LONGEST_KEPT = 256

    def __init__(self, columns: int) -> None:
        super().__init__()
        self._start = columns.to_bytes(2)
        self._left = self._ROOM

    def __missing__(self, vehicle_id: str) -> bytes:
        made = self._start + _text(vehicle_id) + _EIGHT
        if len(made) > self._LONGEST_KEPT:
            return made
        self._left -= len(made)
        if self._left < 0:
            self.clear()
            self._left = self._ROOM - len(made)
        self[vehicle_id] = made
        return made


@cache
def _heads(columns: int) -> _Heads:
    """The beginnings that all rows with this number of columns share."""
    return _Heads(columns)


#: However many types and values there are.
_MOST_TAILS = 5000


class _CountedTails(dict[tuple[str, int, str | None], tuple[bytes, bytes]]):
    """Caches as _Tails does, for detections, and has the columns that are counted beside all."""

    def __init__(self, file_id: int) -> None:
        super().__init__()
        self._file_id = _EIGHT + file_id.to_bytes(8)

    def __missing__(self, values: tuple[str, int, str | None]) -> tuple[bytes, bytes]:
        object_type, value, extra = values
        counted = _counted(object_type, value)
        made = counted + _json(extra) + self._file_id, counted
        if extra is None and len(self) < _MOST_TAILS:
            self[values] = made
        return made


class _Tails(dict[tuple[str | int | None, ...], bytes]):
    """Caches the encoded columns after the time, by their values (the last is JSON): mostly they are few."""

    def __init__(self, file_id: int) -> None:
        super().__init__()
        self._file_id = _EIGHT + file_id.to_bytes(8)

    def __missing__(self, values: tuple[Any, ...]) -> bytes:
        *columns, extra = values
        parts = [_text(value) if isinstance(value, str) else _integer(value) for value in columns]
        made = b"".join([*parts, _json(extra), self._file_id])
        if extra is None and len(self) < _MOST_TAILS:  # unknown fields are seldom the same, and may be large
            self[values] = made
        return made


@lru_cache(_MOST_TAILS)
def _counted(object_type: str, value: int) -> bytes:
    """Packs the columns that are counted: mostly one object for equal values, which is soon found equal."""
    return _text(object_type) + _integer(value)


def _message(partition: int, offset: int, value: bytes | None) -> bytes:
    held = _NULL if value is None else len(value).to_bytes(4) + value
    return _integer(partition) + _EIGHT + offset.to_bytes(8) + held


def _text(value: str) -> bytes:
    encoded = value.encode()
    return len(encoded).to_bytes(4) + encoded


def _integer(value: int) -> bytes:
    return _FOUR + value.to_bytes(4, signed=True)


def _json(value: str | None) -> bytes:
    if value is None:
        return _NULL
    encoded = value.encode()
    return (len(encoded) + 1).to_bytes(4) + _JSONB_VERSION + encoded
