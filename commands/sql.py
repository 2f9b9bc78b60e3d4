"""Runs a query and prints its rows as a table, CSV or JSON."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from msgspec import Raw
from psycopg2 import extensions
from psycopg2.errors import ActiveSqlTransaction
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extensions import new_array_type, new_type, register_type, set_wait_callback

from commands.errors import QueryFailed
from commands.sql_forms import Form, Page, show
from db.patience import wait_for_answer
from db.session import make_read_only

#: Rows fetched at once: a result of any size needs the memory of so many.
_PAGE_ROWS = 2_000

#: SQLSTATE of a statement that no cursor can be opened for, and of one that a read-only transaction refuses.
_NO_CURSOR, _READ_ONLY = "42P11", "25006"


def run(connection: Connection, statement: str, form: Form, *, may_write: bool = False) -> None:
    """Runs a statement and prints its rows; raises QueryFailed with the database's message.

    Of several statements in one text the rows of the last are printed; all of them are done or none.
    """
    connection.autocommit = True
    with _translate_errors(may_write), _cancel_on_ctrl_c(), connection.cursor() as cursor:
        _register_types(cursor)
        # As typed: where the locale is ASCII, Python gives other characters as the bytes that they are.
        statement = statement.encode("utf-8", "surrogateescape").decode("utf-8")
        if may_write:
            try:
                cursor.execute(statement)
            except ActiveSqlTransaction:  # VACUUM, for example, must be alone in its message
                Cursor.execute(cursor, statement)
            pages = iter([cursor.fetchall()] if cursor.description else [])
        else:
            make_read_only(connection)
            pages = _stream(cursor, statement)
        first = next(pages, [])
        if cursor.description is None:
            print(cursor.statusmessage, file=sys.stderr)  # noqa: T201
        else:
            show([column.name for column in cursor.description], _chain(first, pages), form)


def _stream(cursor: Cursor, statement: str) -> Iterator[Page]:
    """Yields the rows in pages; all at once where the statement can't have a cursor."""
    if not _open_cursor(cursor, statement):
        cursor.execute(statement)
        if cursor.description:
            print("several statements: these are the rows of the last", file=sys.stderr)  # noqa: T201
            yield cursor.fetchall()
        return
    while True:
        cursor.execute(f"FETCH {_PAGE_ROWS} FROM shown")
        yield (page := cursor.fetchall())
        if len(page) < _PAGE_ROWS:
            break
    cursor.execute("COMMIT")


def _open_cursor(cursor: Cursor, statement: str) -> bool:
    """Begins a transaction with a cursor for the statement; false if it is several, or one without rows."""
    # DECLARE takes neither EXPLAIN nor SHOW, and would run what stands behind a semicolon: PL/pgSQL takes
    # every statement that has rows, and refuses several before it runs the first.
    opened = cursor.mogrify("BEGIN OPEN rows NO SCROLL FOR EXECUTE %s; END", (statement,)).decode()
    try:
        cursor.execute(
            # All rows are wanted; a plan for a cursor would prefer to give the first ones soon.
            "BEGIN; SET LOCAL cursor_tuple_fraction = 1; DO %s",
            (f"DECLARE rows refcursor := 'shown'; {opened}",),
        )
    except psycopg2.Error as error:
        if error.pgcode != _NO_CURSOR:
            raise
        cursor.execute("ROLLBACK")
        return False
    return True


def _chain(first: Page, others: Iterator[Page]) -> Iterator[Page]:
    yield first
    yield from others


@contextmanager
def _translate_errors(may_write: bool) -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        what = str(error).strip().splitlines()[0]
        if error.pgcode == _READ_ONLY and not may_write:
            what += "; with --write the statement may change the database"
        raise QueryFailed(what) from None
    except UnicodeDecodeError:
        raise QueryFailed("the statement is not UTF-8") from None
    except KeyboardInterrupt:
        raise QueryFailed("interrupted: these are not all rows") from None


@contextmanager
def _cancel_on_ctrl_c() -> Iterator[None]:
    """Lets Ctrl+C cancel the query; libpq alone would first wait for the answer."""
    set_wait_callback(wait_for_answer)
    try:
        yield
    finally:
        set_wait_callback(None)


def _raw(value: str | bytes | None, _: Cursor) -> Raw | None:
    return None if value is None else Raw(value)


def _or_text(cast: Callable[..., Any]) -> Callable[[str | None, Cursor], Any]:
    """Returns a cast that keeps the database's text where Python has no such time."""

    def kept(value: str | None, cursor: Cursor) -> Any:
        # psycopg2 would make 9999-12-31 of infinity.
        if value in ("infinity", "-infinity"):
            return value
        try:
            return cast(value, cursor)
        except (ValueError, OverflowError, psycopg2.Error):
            return value

    return kept


#: Types with their arrays, and what becomes of a value.
_TYPES: tuple[tuple[str, tuple[int, ...], tuple[int, ...], Callable[..., Any]], ...] = (
    # As stored text. Parsing it would lose repeated keys, 1e309 and digits of long numbers.
    ("JSON", (114, 3802), (199, 3807), _raw),
    ("DATE", (1082,), (1182,), _or_text(extensions.PYDATE)),
    ("TIMESTAMP", (1114,), (1115,), _or_text(extensions.PYDATETIME)),
    ("TIMESTAMPTZ", (1184,), (1185,), _or_text(extensions.PYDATETIMETZ)),
    # psycopg2 would make 30 days of an interval's month, 00:00 of the time 24:00, and has no endless range.
    ("TEXT", (1083, 1266, 1186, 3904, 3906, 3908, 3910, 3912, 3926),
     (1183, 1270, 1187, 3905, 3907, 3909, 3911, 3913, 3927), extensions.UNICODE),
)  # fmt: skip


def _register_types(cursor: Cursor) -> None:
    for name, types, arrays, cast in _TYPES:
        one = new_type(types, name, cast)
        register_type(one, cursor)
        register_type(new_array_type(arrays, f"{name}ARRAY", one), cursor)
