"""Rows of which some exist already, or are refused: inserts the new ones, and tells what the others are."""

from collections.abc import Sequence
from datetime import date, timedelta
from operator import attrgetter

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.chunk import Chunk
from db.connection import KeyExists, RowRefused, savepoint
from db.insert import copy_rows
from db.tables import Table
from processing.errors import TryAgain


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
            existing = find_existing(cursor, chunk, rows)
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
    return {rows[place]: stored for place, stored in _compare(cursor, table, chunk.packed.dates())}


def _compare(cursor: Cursor, table: Table, days: Sequence[date]) -> list[tuple[int, str | None]]:
    """Row by row through the index: a join by hash would read whole partitions."""
    end = days[-1] + timedelta(1) if days[-1] < date.max else "infinity"
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
            WHERE {where} AND {table.key[1]} >= %s AND {table.key[1]} < %s
            LIMIT 1
        ) old
        """,
        (days[0], end),
    )
    found: list[tuple[int, str | None]] = cursor.fetchall()
    return found
