"""Runs a query and prints its rows as a table, CSV or JSON."""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import psycopg2
from msgspec import json
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import set_wait_callback
from psycopg2.extras import wait_select
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from processing.names import printable


class Form(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


class QueryFailed(Exception):
    """The database does not take the user's statement."""


def run(connection: Connection, statement: str, form: Form) -> None:
    """Raises QueryFailed with the database's own words."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        with _explained(), _cancelled_by_ctrl_c():
            cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
        if cursor.description is None:
            print(cursor.statusmessage, file=sys.stderr)  # noqa: T201
        else:
            show([column.name for column in cursor.description], rows, form)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        raise QueryFailed(str(error).strip().splitlines()[0]) from None
    except UnicodeEncodeError:
        raise QueryFailed("the statement is not UTF-8") from None
    except (ValueError, OverflowError) as error:
        raise QueryFailed(f"a value can't be shown ({error}); cast it to text") from None


@contextmanager
def _cancelled_by_ctrl_c() -> Iterator[None]:
    """Without this, libpq would wait for the answer first."""
    set_wait_callback(wait_select)
    try:
        yield
    finally:
        set_wait_callback(None)


def show(columns: list[str], rows: list[tuple[Any, ...]], form: Form) -> None:
    """Prints rows on standard output."""
    if form is Form.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([["" if value is None else _plain(value) for value in row] for row in rows])
    elif form is Form.JSON:
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        sys.stdout.write(json.format(json.encode(records, enc_hook=str), indent=2).decode() + "\n")
    else:
        _show_table(columns, rows)


def _show_table(columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    table = Table(show_edge=False)
    for index, column in enumerate(columns):
        is_number = bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(escape(printable(column)), justify="right" if is_number else "left", no_wrap=True)
    for row in rows:
        # Printable: what a dropped file holds must not command the terminal.
        table.add_row(*(escape(printable(_plain(value))) for value in row))
    # As wide as the rows are: a terminal wraps long lines, a pipe should not.
    Console(highlight=False, width=100_000).print(table)
    print(f"({len(rows)} row{'' if len(rows) == 1 else 's'})")  # noqa: T201


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, dict | list):
        return json.encode(value).decode()
    return str(value)
