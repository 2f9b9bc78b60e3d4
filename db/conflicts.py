"""Rows of which some exist already, or are refused: inserts the new ones, and tells what the others are."""

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
from db.tables import Table

#: From so many rows on it pays to ask first what there is of their vehicles about their times: where 1 % of
#: the rows are there, that costs a quarter of looking at each.
_MANY_ROWS = 1000

#: As long as no more than this share of them is found there, or to fetch them would take longer.
_SPARSE = 0.1

#: Rows among which some are refused are divided into so many parts: two would be fewer steps, but the rows
#: that are not refused would be sent more often.
_PARTS = 8

#: At so few the server tells one by one: 30 µs a row and 3 ms a step, more or less what one more step costs.
_SINGLY = 500


class ConflictResolver:
    """One chunk on its way into its table, by the indexes of its rows.

    Of equal keys the first counts. duplicates are there with the same value; rejects have a reason and a
    detail. With shows_status each report also becomes the latest of its vehicle in the step that inserts it,
    so that it is refused if vehicle_status refuses it. With is_ruled the rules of the table are asked.
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
        rest = self._chunk.order
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
        """Rows of different keys; those that are refused are found by dividing, at last by the server itself.

        is_asked tells that those which exist are not among them.
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
                self._settle(rows[0], "refused", str(refusal))
                return
            for part in _divided(rows, 2):
                self._insert_singly(part)
        else:
            for index, reason, said in verdicts:
                self._settle(index, reason, said)

    def _without_existing(self, rows: list[int]) -> list[int]:
        """Sets those apart whose key exists; raises RowRefused if the table could not hold a value."""
        if not rows:
            return rows
        with savepoint(self._connection) as cursor:
            existing = find_existing(cursor, self._chunk, candidate_rows(cursor, self._chunk, rows))
        # Of duplicates there may be as many as rows: no call for each.
        self.duplicates += [index for index, stored in existing.items() if stored is None]
        for index, stored in existing.items():
            if stored is not None:
                self._settle(index, "conflict", stored)
        return [index for index in rows if index not in existing]

    def _settle(self, index: int, reason: str, said: str) -> None:
        match reason:
            case "duplicate":
                self.duplicates.append(index)
            case "conflict":
                detail = f"Expected the value stored under this key ({said}), got another"
                self.rejects[index] = reason, detail
            case _:
                self.rejects[index] = reason, said

    def _insert(self, rows: list[int]) -> None:
        """All of them or, with RowRefused, none."""
        if not rows:
            return
        if self._is_ruled:
            raise RowRefused("0A000", "COPY asks no rules")
        chunk = self._chunk
        with savepoint(self._connection) as cursor:
            copy_rows(cursor, chunk.table, chunk.data_of(rows), len(rows))
            if self._shows_status:
                latest = LatestStatus()
                for _, record in chunk.of(rows):
                    latest.take([record])
                latest.flush(cursor)


def _divided(rows: list[int], parts: int) -> Iterator[list[int]]:
    size = -(-len(rows) // parts)
    return (rows[start : start + size] for start in range(0, len(rows), size))


def first_of_each_key(chunk: Chunk, rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """The first row of each key, and the others; both in the order that the rows had."""
    records = [record for _, records in chunk.records() for record in records]
    key = attrgetter(*chunk.table.key)
    firsts: dict[object, int] = {}
    for index in sorted(rows):
        firsts.setdefault(key(records[index]), index)
    chosen = set(firsts.values())
    return [index for index in rows if index in chosen], [index for index in rows if index not in chosen]


def candidate_rows(cursor: Cursor, chunk: Chunk, rows: Sequence[int]) -> Sequence[int]:
    """Those of the rows, which are in the order of their bytes, whose vehicle and time are there: or all, if
    to look at each is cheaper than to find out."""
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
