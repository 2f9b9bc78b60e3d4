"""Inserts rows of which some may exist, through a temporary table, and tells which did."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor

from db.ledger import Entry
from db.tables import Table
from processing.errors import TryAgain
from processing.records import Kind, Parsed, Record, Rejected


class Placed(NamedTuple):
    """A row and where it came from: the offset-th record of an element of a file."""

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
    """A row that was not inserted, because its key is there: with the same value, or with another."""

    index: int
    is_same: bool
    detail: str


def insert_new(cursor: Cursor, table: Table, rows: Sequence[tuple[Record, int]]) -> list[Existing]:
    """Inserts the rows with new keys, of equal keys the first; gives back the others."""
    _fill(cursor, table, rows)
    _move_new(cursor, table)
    return _compare(cursor, table, rows)


def _fill(cursor: Cursor, table: Table, rows: Sequence[tuple[Record, int]]) -> None:
    columns = ", ".join(f"{name} {type_}" for name, type_ in zip(table.columns, table.types, strict=True))
    cursor.execute(
        f"""
        CREATE TEMPORARY TABLE IF NOT EXISTS new_{table.name} (index integer, {columns})
            ON COMMIT DELETE ROWS;
        TRUNCATE new_{table.name}
        """
    )
    lines = "".join(
        [
            f"{i}\t{table.lines((record,), str(table.time(record)), file_id)}"
            for i, (record, file_id) in enumerate(rows)
        ]
    )
    cursor.copy_expert(f"COPY new_{table.name} FROM STDIN", StringIO(lines))


def _move_new(cursor: Cursor, table: Table) -> None:
    """Takes the rows that it inserts out of the temporary table."""
    key = ", ".join(table.key)
    cursor.execute(
        f"""
        WITH candidate AS (
            SELECT DISTINCT ON ({key}) *
            FROM new_{table.name}
            ORDER BY {key}, index
        ), inserted AS (
            INSERT INTO {table.full_name} ({table.list_columns()})
            SELECT {table.list_columns()} FROM candidate
            ON CONFLICT ({key}) DO NOTHING
            RETURNING {key}
        )
        DELETE FROM new_{table.name} new
        USING candidate JOIN inserted USING ({key})
        WHERE new.index = candidate.index
        """
    )


def _compare(cursor: Cursor, table: Table, rows: Sequence[tuple[Record, int]]) -> list[Existing]:
    """What is left, beside what is stored under its key. A new statement sees what others committed."""
    times = [table.time(record) for record, _ in rows]
    on = " AND ".join(f"old.{column} = new.{column}" for column in table.key)
    new, old = (", ".join(f"{side}.{column}" for column in table.value) for side in ("new", "old"))
    shown = ", ' ', ".join(f"'{column}=', coalesce(old.{column}::text, 'null')" for column in table.value)
    cursor.execute(
        f"""
        SELECT new.index,
               old.vehicle_id IS NULL,
               ({new}) IS NOT DISTINCT FROM ({old}),
               concat({shown})
        FROM new_{table.name} new
        LEFT JOIN {table.full_name} old
            ON {on} AND old.{table.key[1]} BETWEEN %s AND %s
        """,
        (min(times), max(times)),
    )
    existing = cursor.fetchall()
    if any(is_gone for _, is_gone, _, _ in existing):
        raise TryAgain("a row was deleted while it was compared")
    return [
        Existing(index, is_same, f"Expected the value stored under this key ({stored}), got another")
        for index, _, is_same, stored in existing
    ]
