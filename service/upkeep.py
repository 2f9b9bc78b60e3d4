"""Puts the tables in order: drops days older than the retention, and moves rows of "other" to their days."""

from collections.abc import Callable
from datetime import date

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db import retention
from db.partitions import Step, bring_home
from db.tables import TABLES, Table, Tables
from service.events import DayDropped, PartitionMade, Publish, RowsInOther, StraysDropped

#: The pause after a step that took locks: loads that waited for them go on meanwhile.
_PAUSE_SECONDS = 1.0

#: How often a round tries to get locks that are not free, and the pause between.
_TRIES = 20
_LOCK_PAUSE_SECONDS = 0.2


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
                    rows = self._drop(cursor, table, day)
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

    def _drop(self, cursor: Cursor, table: Table, day: date) -> int | None:
        for _try in range(_TRIES):
            rows = retention.drop_day(cursor, table, day)
            if rows is not None or self._pause(_LOCK_PAUSE_SECONDS):
                return rows
        return None

    def bring_home(self) -> None:
        """Gives days that have rows in "other" their own partition, as long as the locks are free."""
        with self._connection.cursor() as cursor:
            for table in self._tables.values():
                if not self._move(cursor, table):
                    return

    def _move(self, cursor: Cursor, table: Table) -> bool:
        """Moves rows of a table as far as possible now; returns false if the round is to end."""
        tries = _TRIES
        while tries and (step := bring_home(cursor, table)):
            for day in step.days:
                self._publish(PartitionMade(table.name, str(day)))
            tries -= step.is_held_up
            if self._pause(_pause_after(step)):
                return False
        return True

    def find_others(self) -> list[RowsInOther]:
        """Returns the tables that still have rows in "other"."""
        with self._connection.cursor() as cursor:
            return [
                RowsInOther(found.table, found.rows, found.days) for found in retention.other_rows(cursor)
            ]


def _pause_after(step: Step) -> float:
    if step.is_held_up:
        return _LOCK_PAUSE_SECONDS
    return _PAUSE_SECONDS if step.days else 0.0
