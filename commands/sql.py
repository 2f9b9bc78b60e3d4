"""Runs a query and prints its rows as a table, CSV or JSON."""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from math import isfinite
from typing import Any

import psycopg2
from msgspec import DecodeError, Raw, json
from psycopg2.errors import ActiveSqlTransaction
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extensions import new_array_type, new_type, register_type, set_wait_callback
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from db.patience import wait_for_answer
from processing.printable import printable


class Form(StrEnum):
    """The form in which rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def _raw(value: str | bytes | None, _: Cursor) -> Raw | None:
    return None if value is None else Raw(value)


#: The types json and jsonb, and arrays of them, pass through as stored text. Parsing it would lose repeated
#: keys, 1e309 and digits of long numbers.
_JSON = new_type((114, 3802), "JSON", _raw)
_JSON_ARRAY = new_array_type((199, 3807), "JSONARRAY", _JSON)


class QueryFailed(Exception):
    """The database refused the user's statement, or its rows can't be shown."""


def run(connection: Connection, statement: str, form: Form) -> None:
    """Runs a statement and prints its rows; raises QueryFailed with the database's message."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        register_type(_JSON, cursor)
        register_type(_JSON_ARRAY, cursor)
        with _translate_errors(), _cancel_on_ctrl_c():
            try:
                cursor.execute(statement)
            except ActiveSqlTransaction:  # VACUUM, for example, must be alone in its message
                Cursor.execute(cursor, statement)
            rows = cursor.fetchall() if cursor.description else []
        if cursor.description is None:
            print(cursor.statusmessage, file=sys.stderr)  # noqa: T201
        else:
            show([column.name for column in cursor.description], rows, form)


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        raise QueryFailed(str(error).strip().splitlines()[0]) from None
    except UnicodeEncodeError:
        raise QueryFailed("the statement is not UTF-8") from None
    except (ValueError, OverflowError) as error:
        raise QueryFailed(f"a value can't be shown ({error}); cast it to text") from None


@contextmanager
def _cancel_on_ctrl_c() -> Iterator[None]:
    """Lets Ctrl+C cancel the query; libpq alone would first wait for the answer."""
    set_wait_callback(wait_for_answer)
    try:
        yield
    finally:
        set_wait_callback(None)


def show(columns: list[str], rows: list[tuple[Any, ...]], form: Form) -> None:
    """Prints rows on standard output."""
    if form is Form.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([[_plain(value) for value in row] for row in rows])
    elif form is Form.JSON:
        sys.stdout.write(_laid_out(_json_of(columns, rows)).decode() + "\n")
    else:
        _show_table(columns, rows)


def _show_table(columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    table = Table(show_edge=False)
    for index, column in enumerate(columns):
        is_number = bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(escape(printable(column)), justify="right" if is_number else "left", no_wrap=True)
    for row in rows:
        # Printable: text from a dropped file must not control the terminal.
        table.add_row(*(escape(printable(_plain(value))) for value in row))
    # As wide as the rows: a terminal wraps long lines, and a pipe must not.
    Console(highlight=False, width=100_000).print(table)
    print(f"({len(rows)} row{'' if len(rows) == 1 else 's'})")  # noqa: T201


def _json_of(columns: list[str], rows: list[tuple[Any, ...]]) -> bytes:
    """Formats rows as an array of objects; a name that two columns share appears twice."""
    names = [json.encode(column) + b":" for column in columns]
    objects = [
        b"{" + b",".join(name + _json(value) for name, value in zip(names, row, strict=True)) + b"}"
        for row in rows
    ]
    return b"[" + b",".join(objects) + b"]"


def _json(value: Any) -> bytes:
    """Formats a value; numbers keep all digits; NaN and infinity become text, as in to_json()."""
    if isinstance(value, list):
        return b"[" + b",".join(map(_json, value)) + b"]"
    if (isinstance(value, float) and not isfinite(value)) or (
        isinstance(value, Decimal) and not value.is_finite()
    ):
        return json.encode(str(Decimal(value)))
    return _ENCODER.encode(value)


_ENCODER = json.Encoder(enc_hook=str, decimal_format="number")


def _laid_out(text: bytes) -> bytes:
    """Indents JSON without changing any value."""
    try:
        return json.format(text, indent=2)
    except (
        DecodeError,
        RecursionError,
    ):  # half of a surrogate pair or a thousand levels, which json can hold
        return text


def _plain(value: Any) -> str:
    match value:
        case None:
            return ""
        case bytes() | memoryview():
            return bytes(value).hex()
        case Raw():
            return bytes(value).decode()
        case Decimal():
            return f"{value:f}"
        case list():
            return _json(value).decode()
        case _:
            return str(value)
