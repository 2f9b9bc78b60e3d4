"""Puts the tables in order: drops days older than the retention, and moves rows of "other" to their days."""

from collections.abc import Callable
from datetime import date

from psycopg2.extensions import connection as Connection

from db import retention
from db.partitions import bring_home
from db.tables import TABLES, Tables
from service.events import DayDropped, PartitionMade, Publish, RowsInOther, StraysDropped

#: The pause between two steps: loads that waited for the lock go on meanwhile.
_PAUSE_SECONDS = 1.0

#: Rows moved under one lock, at most: a million took 9 s on two busy cores, and loads wait 60 s for it.
_MOST_ROWS = 2_000_000


class Upkeep:
    """The steps of one round, over a connection with autocommit; each is a short transaction of its own."""

    def __init__(
        self,
        connection: Connection,
        publish: Publish,
        pause: Callable[[float], bool],
        tables: Tables = TABLES,
    ) -> None:
        """pause waits that many seconds, and returns true if the round is to end."""
        self._connection = connection
        self._publish = publish
        self._pause = pause
        self._tables = tables

    def drop_old(self, first_day: date) -> bool:
        """Drops the days before that one; returns false if one is left, since a lock was not free."""
        is_done = True
        with self._connection.cursor() as cursor:
            for table in self._tables.values():
                for day in retention.days_before(cursor, table, first_day):
                    rows = retention.drop_day(cursor, table, day)
                    if rows is None:
                        is_done = False
                        break  # the other days of the table need the same lock
                    self._publish(DayDropped(table.name, str(day), rows))
                    if self._pause(_PAUSE_SECONDS):
                        return False
                strays = 0
                while dropped := retention.drop_strays(cursor, table, first_day):
                    strays += dropped
                if strays:
                    self._publish(StraysDropped(table.name, strays))
        return is_done

    def bring_home(self) -> None:
        """Gives days that have rows in "other" their own partition, as long as the locks are free."""
        with self._connection.cursor() as cursor:
            for table in self._tables.values():
                while day := bring_home(cursor, table, _MOST_ROWS):
                    self._publish(PartitionMade(table.name, str(day)))
                    if self._pause(_PAUSE_SECONDS):
                        return

    def find_others(self) -> list[RowsInOther]:
        """Returns the tables that still have rows in "other"."""
        with self._connection.cursor() as cursor:
            return [
                RowsInOther(found.table, found.rows, found.days) for found in retention.other_rows(cursor)
            ]
