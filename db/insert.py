"""Rows straight into a table, all or none: a few by execute_values, many by COPY."""

from collections.abc import Sequence
from io import BytesIO

import psycopg2.sql  # noqa: F401  # execute_values() would import it when it is called, and a disk may fail then
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from db.tables import Row, Table
from processing.errors import Misconfigured

#: From so many rows on COPY is faster than execute_values (measured).
COPY_ROWS = 100


def insert_rows(cursor: Cursor, table: Table, rows: Sequence[Row]) -> None:
    """Fewer rows than COPY_ROWS."""
    statement = f"INSERT INTO {table.full_name} ({table.list_columns()}) VALUES %s"
    execute_values(cursor, statement, rows, page_size=COPY_ROWS)
    _check_count(cursor, table.full_name, len(rows))


def copy_rows(cursor: Cursor, table: Table, data: bytes, count: int, name: str = "") -> None:
    """So many rows, as copy_data() gives them; into another table with these columns if it is named."""
    name = name or table.full_name
    statement = f"COPY {name} ({table.list_columns()}) FROM STDIN (FORMAT binary)"
    cursor.copy_expert(statement, BytesIO(data), size=len(data))
    _check_count(cursor, name, count)


def _check_count(cursor: Cursor, name: str, count: int) -> None:
    if cursor.rowcount != count:
        raise Misconfigured(
            f"the table {name} took {cursor.rowcount} of {count} rows: does it have a trigger?"
        )
