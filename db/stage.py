"""Rows of which some may exist: finds these, by a temporary table, and tells which differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor

from db.insert import copy_rows
from db.ledger import Entry
from db.rows import copy_data
from db.tables import Table
from processing.records import Kind, Parsed, Record, Rejected


class Placed(NamedTuple):
    """A row and where it came from: the record that stands offset places into elements of a file."""

    packed: bytes
    record: Record
    entry: Entry
    parsed: Parsed
    offset: int

    def rejected(self, kind: Kind, reason: str, detail: str) -> tuple[Entry, Rejected]:
        """This row as a reject that was found only when it was written."""
        path, original = kind.origin(self.parsed, self.offset)
        position = self.parsed.position + self.offset
        return self.entry, Rejected(position, path, reason, detail, original)


@dataclass(frozen=True)
class Existing:
    """A row whose key is in the table: with the same value, or with another."""

    index: int
    is_same: bool
    detail: str


def first_of_each_key(table: Table, rows: Sequence[Placed]) -> tuple[list[Placed], list[Placed]]:
    """The first row of each key, in the order of COPY, and the others."""
    key = attrgetter(*table.key)
    firsts: dict[object, Placed] = {}
    others = [row for row in rows if firsts.setdefault(key(row.record), row) is not row]
    return sorted(firsts.values(), key=itemgetter(0)), others


def find_existing(cursor: Cursor, table: Table, rows: Sequence[Placed]) -> list[Existing]:
    """Those of the rows whose key exists, among what this transaction and the committed ones wrote."""
    cursor.execute(
        f"""
        CREATE TEMPORARY TABLE IF NOT EXISTS new_{table.name}
            (LIKE {table.full_name}, index integer GENERATED ALWAYS AS IDENTITY)
            ON COMMIT DELETE ROWS;
        TRUNCATE new_{table.name} RESTART IDENTITY
        """
    )
    copy_rows(cursor, table, copy_data(row.packed for row in rows), len(rows), f"new_{table.name}")
    return _compare(cursor, table, rows)


def _compare(cursor: Cursor, table: Table, rows: Sequence[Placed]) -> list[Existing]:
    """Row by row through the index: a join by hash would read whole partitions."""
    times = [table.time(row.record) for row in rows]
    where = " AND ".join(f"{column} = new.{column}" for column in table.key)
    new, old = (", ".join(f"{side}.{column}" for column in table.value) for side in ("new", "old"))
    shown = ", ' ', ".join(f"'{column}=', coalesce(old.{column}::text, 'null')" for column in table.value)
    cursor.execute(
        f"""
        SELECT index - 1,
               ({new}) IS NOT DISTINCT FROM ({old}),
               CASE WHEN ({new}) IS DISTINCT FROM ({old}) THEN concat({shown}) END
        FROM new_{table.name} new
        CROSS JOIN LATERAL (
            SELECT *
            FROM {table.full_name}
            WHERE {where} AND {table.key[1]} BETWEEN %s AND %s
            LIMIT 1
        ) old
        """,
        (min(times), max(times)),
    )
    return [
        Existing(index, is_same, f"Expected the value stored under this key ({stored}), got another")
        for index, is_same, stored in cursor
    ]
