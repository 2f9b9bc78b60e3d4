"""Drops days that are older than the retention; what they held is noted, so that the ledger adds up."""

from datetime import date

from msgspec import Struct
from psycopg2.extensions import cursor as Cursor

from db.connection import translate_errors
from db.tables import Table

#: Rows of the partition "other" that are deleted in one transaction, at most.
_MOST_ROWS = 10_000


class OtherRows(Struct, frozen=True):
    """The rows of a table in its partition "other", and of how many days they are."""

    table: str
    rows: int
    days: int


def first_day(cursor: Cursor, retention_days: int) -> date:
    """Returns the first day that is kept, by the database's clock: a day goes when all of it is older."""
    with translate_errors():
        cursor.execute("SELECT (now() AT TIME ZONE 'UTC')::date - %s", (retention_days,))
        ((day,),) = cursor.fetchall()
    assert isinstance(day, date)
    return day


def days_before(cursor: Cursor, table: Table, day: date) -> list[date]:
    """Returns the days before that one which have a partition, the oldest first."""
    with translate_errors():
        cursor.execute("SELECT * FROM mobileye_data.days_before(%s, %s)", (table.name, day))
        return [found for (found,) in cursor.fetchall()]


def drop_day(cursor: Cursor, table: Table, day: date) -> int | None:
    """Drops a day, in two transactions; returns how many rows it had, None if a lock is not free just now."""
    rows = None
    with translate_errors():
        cursor.execute("SELECT mobileye_data.begin_drop(%s, %s)", (table.name, day))
        if cursor.fetchall() == [(True,)]:
            cursor.execute("SELECT mobileye_data.drop_day(%s, %s)", (table.name, day))
            ((rows,),) = cursor.fetchall()
    return None if rows is None else int(rows)


def drop_strays(cursor: Cursor, table: Table, before: date) -> int:
    """Drops some rows of older days from the partition "other"; returns how many."""
    with translate_errors():
        cursor.execute("SELECT mobileye_data.drop_strays(%s, %s, %s)", (table.name, before, _MOST_ROWS))
        ((rows,),) = cursor.fetchall()
    return int(rows)


def other_rows(cursor: Cursor) -> list[OtherRows]:
    """Returns the tables with rows in their partition "other"."""
    with translate_errors():
        cursor.execute(
            """
            SELECT table_name, sum(rows)::bigint, count(*)
            FROM mobileye_data.rows_in_other GROUP BY table_name ORDER BY table_name
            """
        )
        return [OtherRows(*row) for row in cursor.fetchall()]
