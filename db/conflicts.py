"""Inserts the new rows of a chunk when others exist already or are refused, and reports those."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import attrgetter

from msgspec import json
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.chunk import Chunk
from db.connection import RowRefused, savepoint
from db.copy_format import in_utc, key_start
from db.days import MOST_SPANS, Span, day_spans, within
from db.insert import copy_rows
from db.latest_status import LatestStatus
from db.row_by_row import insert_singly
from db.session import is_pooled
from db.tables import Table

#: From this number of rows on, a query first finds out which vehicles and times are stored: with 1 % of
#: the rows stored, this costs a quarter of looking up each row.
_MANY_ROWS = 1000

#: If more than this share of the rows is stored, each row is looked up: fetching the keys would take longer.
_SPARSE = 0.1

#: Parts into which rows are divided to find the refused ones among them. Two would need fewer steps, but
#: would send the good rows more often.
_PARTS = 8

#: At most this number is inserted row by row, in the server: 3 ms and 30 µs a row, about one more division.
_SINGLY = 500


class ConflictResolver:
    """Inserts one chunk into its table; rows are named by their indexes in the chunk.

    Of rows with equal keys the first is inserted. duplicates are stored with the same value; rejects have a
    reason and a detail. With shows_status, the step that inserts a report also updates vehicle_status, and
    the report is refused if that table refuses it. With is_ruled, rows are inserted so that rules apply.
    """

    def __init__(
        self, connection: Connection, chunk: Chunk, *, shows_status: bool = False, is_ruled: bool = False
    ) -> None:
        self.duplicates: list[int] = []
        self.rejects: dict[int, tuple[str, str]] = {}
        self._connection = connection
        self._chunk = chunk
        self._shows_status = shows_status
        self._is_ruled = is_ruled

    def run(self) -> None:
        """Inserts the rows, but those that are among the rejects already."""
        rest = self._chunk.order
        if self.rejects:
            rest = [index for index in rest if index not in self.rejects]
        while rest:
            is_asked = False
            try:
                rest = self._without_existing(rest)
                is_asked = True
                self._insert(rest)
                return
            except RowRefused:
                firsts, rest = first_of_each_key(self._chunk, rest)
                self._insert_distinct(firsts, is_asked=is_asked)

    def _insert_distinct(self, rows: list[int], *, is_asked: bool) -> None:
        """Inserts rows of different keys; finds the refused ones by division, the last ones in the server.

        is_asked is true if the existing rows have been taken out already.
        """
        try:
            if not is_asked:
                rows = self._without_existing(rows)
                is_asked = True
            self._insert(rows)
        except RowRefused:
            if len(rows) <= _SINGLY:
                self._insert_singly(rows)
                return
            for part in _divided(rows, _PARTS):
                self._insert_distinct(part, is_asked=is_asked)

    def _insert_singly(self, rows: list[int]) -> None:
        try:
            how = {"shows_status": self._shows_status, "is_ruled": self._is_ruled}
            verdicts = insert_singly(self._connection, self._chunk, rows, **how)
        except RowRefused as refusal:
            if len(rows) == 1:
                self._record(rows[0], "refused", str(refusal))
                return
            for part in _divided(rows, 2):
                self._insert_singly(part)
        else:
            for index, reason, said in verdicts:
                self._record(index, reason, said)

    def _without_existing(self, rows: list[int]) -> list[int]:
        """Returns the rows whose key is new; raises RowRefused if the table can't hold a value of one."""
        if not rows:
            return rows
        with savepoint(self._connection) as cursor:
            existing = find_existing(cursor, self._chunk, candidate_rows(cursor, self._chunk, rows))
        # Every row may be a duplicate, so no call is made for each.
        self.duplicates += [index for index, stored in existing.items() if stored is None]
        for index, stored in existing.items():
            if stored is not None:
                self._record(index, "conflict", stored)
        return [index for index in rows if index not in existing]

    def _record(self, index: int, reason: str, said: str) -> None:
        match reason:
            case "duplicate":
                self.duplicates.append(index)
            case "conflict":
                detail = f"Expected the value stored under this key ({said}), got another"
                self.rejects[index] = reason, detail
            case _:
                self.rejects[index] = reason, said

    def _insert(self, rows: list[int]) -> None:
        """Inserts all rows or, raising RowRefused, none."""
        if not rows:
            return
        if self._is_ruled:
            raise RowRefused("0A000", "COPY ignores rules")
        chunk = self._chunk
        with savepoint(self._connection) as cursor:
            copy_rows(cursor, chunk.table, chunk.data_of(rows), len(rows))
            if self._shows_status:
                latest = LatestStatus()
                for _, record in chunk.of(rows):
                    latest.observe(chunk.table, [record])
                latest.flush(cursor)


def _divided(rows: list[int], parts: int) -> Iterator[list[int]]:
    size = -(-len(rows) // parts)
    return (rows[start : start + size] for start in range(0, len(rows), size))


def first_of_each_key(chunk: Chunk, rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """Returns the first row of each key, and the other rows, both in the order of rows."""
    records = [record for _, records in chunk.records() for record in records]
    key = attrgetter(*chunk.table.key)
    firsts: dict[object, int] = {}
    for index in sorted(rows):
        firsts.setdefault(key(records[index]), index)
    chosen = set(firsts.values())
    return [index for index in rows if index in chosen], [index for index in rows if index not in chosen]


def candidate_rows(cursor: Cursor, chunk: Chunk, rows: Sequence[int]) -> Sequence[int]:
    """Returns the rows that may exist (their vehicle and time do), or all if to look up each is cheaper.

    rows must be sorted by their bytes.
    """
    if len(rows) < _MANY_ROWS:
        return rows
    stored = _existing_keys(cursor, chunk, int(len(rows) * _SPARSE))
    if stored is None:
        return rows
    packed, found = chunk.packed.rows, []
    for vehicle_id, time in sorted(stored):
        start = key_start(len(chunk.table.columns), vehicle_id, time)
        place = bisect_left(rows, start, key=packed.__getitem__)
        while place < len(rows) and packed[rows[place]].startswith(start):
            found.append(rows[place])
            place += 1
    return found


def _existing_keys(cursor: Cursor, chunk: Chunk, limit: int) -> set[tuple[str, bytes]] | None:
    """Returns vehicle and time of the stored rows that are near the chunk's rows, or None above the limit.

    Near means: of the same vehicle, on a day of the chunk, between the vehicle's first and last time in it.
    """
    table, time = chunk.table, chunk.table.key[1]
    spans = day_spans(chunk.packed.dates())
    if len(spans) > MOST_SPANS:
        return None
    cursor.execute(
        f"""
        SELECT vehicle_id, timestamptz_send(time)
        FROM jsonb_to_recordset(%s::jsonb) AS asked (vehicle_id text, first timestamptz, last timestamptz)
        CROSS JOIN LATERAL (
            SELECT {time} AS time
            FROM {table.full_name} stored
            WHERE stored.vehicle_id = asked.vehicle_id AND {time} BETWEEN first AND last
              AND ({within(spans, time)})
        ) there
        LIMIT %s
        """,
        (json.encode(_spans(chunk)).decode(), limit + 1),
    )
    found = cursor.fetchall()
    return {(vehicle_id, bytes(sent)) for vehicle_id, sent in found} if len(found) <= limit else None


def _spans(chunk: Chunk) -> list[dict[str, object]]:
    """Returns the first and the last time of each vehicle."""
    spans: dict[str, list[datetime]] = {}
    time_of = chunk.table.time
    vehicle_id, time = None, None
    for _, records in chunk.records():
        for record in records:
            if time_of(record) is time and record.vehicle_id is vehicle_id:  # same event as before
                continue
            vehicle_id, time = record.vehicle_id, time_of(record)
            span = spans.setdefault(vehicle_id, [time, time])
            if time < span[0]:
                span[0] = time
            elif time > span[1]:
                span[1] = time
    return [
        {"vehicle_id": vehicle_id, "first": in_utc(first), "last": in_utc(last)}
        for vehicle_id, (first, last) in spans.items()
    ]


def find_existing(cursor: Cursor, chunk: Chunk, rows: Sequence[int]) -> dict[int, str | None]:
    """Returns the rows whose key is stored, with the stored value as text if it differs, else None.

    Rows that this transaction wrote count as stored, too.
    """
    table = chunk.table
    # The sessions of a pooler are not ours, but making the table again costs every transaction a millisecond.
    at_end = "DROP" if is_pooled(cursor.connection) else "DELETE ROWS"
    cursor.execute(
        f"""
        CREATE TEMPORARY TABLE IF NOT EXISTS new_{table.name}
            (LIKE {table.full_name}, place integer GENERATED ALWAYS AS IDENTITY (MINVALUE 0))
            ON COMMIT {at_end};
        TRUNCATE new_{table.name} RESTART IDENTITY
        """
    )
    copy_rows(cursor, table, chunk.data_of(rows), len(rows), f"new_{table.name}")
    spans = day_spans(chunk.packed.dates())
    found: dict[int, str | None] = {}
    for start in range(0, len(spans), MOST_SPANS):
        some = _compare(cursor, table, spans[start : start + MOST_SPANS])
        found.update((rows[place], stored) for place, stored in some)
    return found


def _compare(cursor: Cursor, table: Table, spans: Sequence[Span]) -> list[tuple[int, str | None]]:
    """Looks up each row of some days through the index: a hash join would read whole partitions."""
    where = " AND ".join(f"{column} = new.{column}" for column in table.key)
    cursor.execute(
        f"""
        SELECT place, {table.difference("new", "old")}
        FROM new_{table.name} new
        CROSS JOIN LATERAL (
            SELECT {", ".join(table.value)}
            FROM {table.full_name}
            WHERE {where} AND ({within(spans, table.key[1])})
            LIMIT 1
        ) old
        WHERE {within([(spans[0][0], spans[-1][1])], f"new.{table.key[1]}")}
        """
    )
    found: list[tuple[int, str | None]] = cursor.fetchall()
    return found
