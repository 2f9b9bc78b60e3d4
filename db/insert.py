"""Inserts rows into a table by COPY, all or none."""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO, RawIOBase
from itertools import chain

from psycopg2.extensions import cursor as Cursor

from db.connection import RowRefused
from db.copy_format import END, START
from db.tables import Table

_MESSAGE_BYTES = 64 * 1024

#: The reason why a table can take fewer rows than it was given, without an error.
LEFT_OUT = "a trigger or a rule leaves rows out"


def copy_rows(cursor: Cursor, table: Table, data: bytes, count: int, name: str = "") -> None:
    """Inserts count rows in the format of copy_data(), into the named table if its name differs."""
    copy_into(cursor, name or table.full_name, table.columns, data, count)


def copy_into(cursor: Cursor, name: str, columns: Sequence[str], data: bytes, count: int) -> None:
    """Inserts count rows into some columns of a table."""
    statement = f"COPY {name} ({', '.join(columns)}) FROM STDIN (FORMAT binary)"
    cursor.copy_expert(statement, BytesIO(data), size=len(data))
    _check_count(cursor, name, count)


def stream_into(cursor: Cursor, name: str, columns: Sequence[str], rows: Iterable[bytes]) -> None:
    """Inserts rows while they are produced, so that few of them are in memory."""
    stream = _Stream(rows)
    cursor.copy_expert(f"COPY {name} ({', '.join(columns)}) FROM STDIN (FORMAT binary)", stream)
    _check_count(cursor, name, stream.count)


class _Stream(RawIOBase):
    """Rows as a file for COPY; count is the number of rows read from it."""

    def __init__(self, rows: Iterable[bytes]) -> None:
        self.count = 0
        self._parts = chain([START], self._counted(rows), [END])

    def read(self, _size: int = -1, /) -> bytes:
        """Returns rows of about one message, whatever the size asked for; nothing after the last row."""
        parts: list[bytes] = []
        size = 0
        for part in self._parts:
            parts.append(part)
            size += len(part)
            if size >= _MESSAGE_BYTES:
                break
        return b"".join(parts)

    def _counted(self, rows: Iterable[bytes]) -> Iterator[bytes]:
        for row in rows:
            self.count += 1
            yield row


def _check_count(cursor: Cursor, name: str, count: int) -> None:
    if cursor.rowcount != count:
        raise RowRefused("09000", f"{name} took {cursor.rowcount} of {count} rows: {LEFT_OUT}")
