"""Makes the partitions of days before rows of these days are sent, or where that could not be, afterwards."""

import time
from collections.abc import Iterable, Sequence
from datetime import date

from msgspec import Struct
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.connection import Database, translate_errors
from db.tables import Table

#: How long days of a table go to the "other" partition without another try, once a lock was not to be had or
#: the table was full: a reader that has the lock will not give it back in an instant, and each try costs a
#: quarter of a second.
LOCKED_SECONDS = 15.0

#: The same for one day, once rows of it are in the "other" partition.
REFUSED_SECONDS = 60.0

#: Refused days that are remembered, at most.
_MOST_REFUSED = 10_000

#: Blocks of the "other" partition that are copied in one step: 10,000 rows.
_STEP_BLOCKS = 100

Day = tuple[str, date]


class Partitions:
    """Days that have their partition, as far as this process knows, and those that can't have one now.

    Another connection makes them, in transactions of their own: within a long load a new partition would keep
    every other process from the table until that load ends. It is there from the first partition that a
    transaction lacks to the end of that transaction.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._known: set[Day] = set()
        self._refused: dict[Day, float] = {}
        self._locked: dict[str, float] = {}

    def ensure(self, connection: Connection, table: Table, days: Iterable[date]) -> None:
        """Rows of these days find their partition, or else the "other" one; looks with that connection."""
        now = time.monotonic()
        missing = [
            day
            for day in days
            if (table.name, day) not in self._known and self._refused.get((table.name, day), now) <= now
        ]
        if not missing:
            return
        with translate_errors():
            with connection.cursor() as cursor:
                there = _find(cursor, table, missing)
            self._known.update((table.name, day) for day in there)
            to_make = sorted(set(missing) - there)
            if to_make and self._locked.get(table.name, now) <= now:
                if self._connection is None:
                    self._connection = self._database.connect(autocommit=True)
                with self._connection.cursor() as cursor:
                    self._make(cursor, table, to_make)

    def forget(self) -> None:
        """Days may have been dropped since: looks at the database again from now on."""
        self._known.clear()

    def close(self) -> None:
        """Forgets the days of a transaction that was rolled back: "other" has no rows of them."""
        self._locked.clear()
        self._refused.clear()
        self.release()

    def release(self) -> None:
        """Closes the connection; to be called at the end of each transaction."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _make(self, cursor: Cursor, table: Table, days: list[date]) -> None:
        for day in days:
            cursor.execute("SELECT mobileye_data.add_partition(%s, %s)", (table.name, day))
            ((is_made,),) = cursor.fetchall()
            if is_made:
                self._known.add((table.name, day))
            elif is_made is None or _is_full(cursor, table):  # a file may hold thousands of days more
                self._locked[table.name] = time.monotonic() + LOCKED_SECONDS
                return
            else:
                self._refuse((table.name, day))

    def _refuse(self, day: Day) -> None:
        if len(self._refused) >= _MOST_REFUSED:
            self._refused.clear()
        self._refused[day] = time.monotonic() + REFUSED_SECONDS


class Step(Struct, frozen=True):
    """A step of moving rows from "other" to partitions of their days: the days that have theirs now."""

    days: Sequence[date] = ()
    is_held_up: bool = False


def bring_home(cursor: Cursor, table: Table) -> Step | None:
    """Takes the next step of a move; returns None if nothing is left to move.

    Each step has to be a transaction of its own. It is held up if somebody is at work on the table just now.
    """
    with translate_errors():
        cursor.execute("SELECT * FROM mobileye_data.bring_home(%s, %s)", (table.name, _STEP_BLOCKS))
        ((step, days),) = cursor.fetchall()
    return None if step == "done" else Step(days or (), step == "held up")


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
