"""Makes the partitions of days before rows of these days are sent, or where that could not be, afterwards."""

import time
from collections.abc import Iterable
from datetime import date

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.connection import Database, translate_errors
from db.tables import Table

#: How long days of a table go to the "other" partition without another try, once a lock was not to be had: a
#: reader that has it will not give it back in an instant, and each try costs a quarter of a second.
LOCKED_SECONDS = 15.0

#: The same for one day, once rows of it are in the "other" partition.
REFUSED_SECONDS = 60.0

#: Refused days that are remembered, at most.
_MOST_REFUSED = 10_000

Day = tuple[str, date]


class Partitions:
    """Days that have their partition, as far as this process knows, and those that can't have one now.

    A connection of its own makes them, in transactions of their own: within a long load a new
    partition would keep every other process from the table until that load ends.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._known: set[Day] = set()
        self._refused: dict[Day, float] = {}
        self._locked: dict[str, float] = {}

    def ensure(self, table: Table, days: Iterable[date]) -> None:
        """Rows of these days find their partition, or else the "other" one."""
        now = time.monotonic()
        missing = [
            day
            for day in days
            if (table.name, day) not in self._known and self._refused.get((table.name, day), now) <= now
        ]
        if not missing:
            return
        if self._connection is None:
            self._connection = self._database.connect(autocommit=True)
        with translate_errors(), self._connection.cursor() as cursor:
            there = _find(cursor, table, missing)
            self._known.update((table.name, day) for day in there)
            if self._locked.get(table.name, now) <= now:
                self._make(cursor, table, sorted(set(missing) - there))

    def forget(self) -> None:
        """Days may have been dropped since: looks at the database again from now on."""
        self._known.clear()

    def close(self) -> None:
        """Forgets the days of a transaction that was rolled back: "other" has no rows of them."""
        self._locked.clear()
        self._refused.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _make(self, cursor: Cursor, table: Table, days: list[date]) -> None:
        for day in days:
            cursor.execute("SELECT mobileye_data.add_partition(%s, %s)", (table.name, day))
            ((is_made,),) = cursor.fetchall()
            if is_made:
                self._known.add((table.name, day))
            elif is_made is None:
                self._locked[table.name] = time.monotonic() + LOCKED_SECONDS
                return
            elif _is_full(cursor, table):  # a file may hold thousands of days more
                return
            else:
                self._refuse((table.name, day))

    def _refuse(self, day: Day) -> None:
        if len(self._refused) >= _MOST_REFUSED:
            self._refused.clear()
        self._refused[day] = time.monotonic() + REFUSED_SECONDS


def bring_home(cursor: Cursor, table: Table, most_rows: int) -> date | None:
    """Moves the rows of a day with no more than these from the "other" partition to one of their own.

    Gives back the day; None if there is no such day, or somebody is at work on the table just now.
    """
    with translate_errors():
        cursor.execute("SELECT mobileye_data.bring_home(%s, %s)", (table.name, most_rows))
        ((day,),) = cursor.fetchall()
    return day if isinstance(day, date) else None


def _find(cursor: Cursor, table: Table, days: list[date]) -> set[date]:
    """Returns those of the days that have their partition."""
    names = {f"{table.name}_{day.year:04}{day.month:02}{day.day:02}": day for day in days}
    cursor.execute(
        """
        SELECT relname::text
        FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid
        WHERE relname = ANY (%s::name[]) AND relnamespace = 'mobileye_data'::regnamespace
          AND inhparent = %s::regclass
        """,
        (list(names), table.full_name),
    )
    return {names[name] for (name,) in cursor.fetchall()}


def _is_full(cursor: Cursor, table: Table) -> bool:
    cursor.execute("SELECT mobileye_data.is_full(%s)", (table.name,))
    ((is_full,),) = cursor.fetchall()
    return bool(is_full)
