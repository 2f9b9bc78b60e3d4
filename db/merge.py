"""Rows of which some exist already, or are refused: inserts the new ones, and tells what the others are."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter

from msgspec import json
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.chunk import Chunk
from db.connection import KeyExists, RowRefused, savepoint
from db.days import MOST_SPANS, Span, day_spans, within
from db.insert import copy_rows
from db.rows import in_utc, key_start
from db.tables import Table
from processing.errors import TryAgain

#: From so many rows on it pays to ask first what there is of their vehicles about their times: where 1 % of
#: the rows are there, that costs a quarter of looking at each.
_MANY_ROWS = 1000

#: As long as no more than this share of them is found there, or to fetch them would take longer.
_SPARSE = 0.1


class Merge:
    """One chunk on its way into its table, by the indexes of its rows.

    Of equal keys the first counts. duplicates are there with the same value; rejects have a reason and a
    detail.
    """

    def __init__(self, connection: Connection, chunk: Chunk) -> None:
        self.duplicates: list[int] = []
        self.rejects: dict[int, tuple[str, str]] = {}
        self._connection = connection
        self._chunk = chunk

    def run(self) -> None:
        """Raises TryAgain if another process has written one of the keys meanwhile."""
        rest = self._chunk.order
        while rest:
            try:
                self._insert_new(rest)
                break
            except RowRefused:
                firsts, rest = first_of_each_key(self._chunk, rest)
                self._insert_distinct(firsts)

    def _insert_distinct(self, rows: list[int]) -> None:
        """Rows of different keys; those that are refused are found by halving."""
        try:
            self._insert_new(rows)
        except KeyExists:
            raise TryAgain("another process has written one of the keys") from None
        except RowRefused as refusal:
            if len(rows) == 1:
                self.rejects[rows[0]] = "refused", str(refusal)
                return
            middle = len(rows) // 2
            self._insert_distinct(rows[:middle])
            self._insert_distinct(rows[middle:])

    def _insert_new(self, rows: list[int]) -> None:
        """The rows whose key does not exist; raises RowRefused if any of them is, then none is inserted."""
        chunk = self._chunk
        with savepoint(self._connection) as cursor:
            existing = find_existing(cursor, chunk, may_exist(cursor, chunk, rows))
            new = [index for index in rows if index not in existing]
            if new:
                copy_rows(cursor, chunk.table, chunk.data_of(new), len(new))
        for index, stored in existing.items():
            if stored is None:
                self.duplicates.append(index)
            else:
                detail = f"Expected the value stored under this key ({stored}), got another"
                self.rejects[index] = "conflict", detail


def first_of_each_key(chunk: Chunk, rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """The first row of each key, and the others; both in the order that the rows had."""
    records = [record for _, records in chunk.records() for record in records]
    key = attrgetter(*chunk.table.key)
    firsts: dict[object, int] = {}
    for index in sorted(rows):
        firsts.setdefault(key(records[index]), index)
    chosen = set(firsts.values())
    return [index for index in rows if index in chosen], [index for index in rows if index not in chosen]


def may_exist(cursor: Cursor, chunk: Chunk, rows: Sequence[int]) -> Sequence[int]:
    """Those of the rows, which are in the order of their bytes, whose vehicle and time are there: or all, if
    to look at each is cheaper than to find out."""
    if len(rows) < _MANY_ROWS:
        return rows
    stored = _stored_about(cursor, chunk, int(len(rows) * _SPARSE))
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


def _stored_about(cursor: Cursor, chunk: Chunk, limit: int) -> set[tuple[str, bytes]] | None:
    """Vehicle and time of each row that the table has of the chunk's vehicles, on its days and from the first
    to the last of their times in it; None if there are more than the limit."""
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
    """The first and the last time of each vehicle."""
    spans: dict[str, list[datetime]] = {}
    time_of = chunk.table.time
    vehicle_id, time = None, None
    for _, records in chunk.records():
        for record in records:
            if time_of(record) is time and record.vehicle_id is vehicle_id:  # of the same event
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
    """The rows whose key this transaction or a committed one wrote, with the value that is stored, as text,
    where it is another."""
    table = chunk.table
    cursor.execute(
        f"""
        CREATE TEMPORARY TABLE IF NOT EXISTS new_{table.name}
            (LIKE {table.full_name}, place integer GENERATED ALWAYS AS IDENTITY (MINVALUE 0))
            ON COMMIT DELETE ROWS;
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
    """The rows of these days, row by row through the index: a join by hash would read whole partitions."""
    where = " AND ".join(f"{column} = new.{column}" for column in table.key)
    new, old = (", ".join(f"{side}.{column}" for column in table.value) for side in ("new", "old"))
    shown = ", ' ', ".join(f"'{column}=', coalesce(old.{column}::text, 'null')" for column in table.value)
    cursor.execute(
        f"""
        SELECT place, CASE WHEN ({new}) IS DISTINCT FROM ({old}) THEN concat({shown}) END
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
