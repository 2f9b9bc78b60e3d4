"""Makes the partitions of days before rows of these days are sent."""

from collections.abc import Iterable
from datetime import date

from psycopg2.extensions import connection as Connection

from db.connection import Database, translated
from db.tables import Table


class Partitions:
    """Days that have their partition, as far as this process knows.

    A connection of its own makes them, in transactions of their own: within a long load a new
    partition would keep every other process from the table until that load ends.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._known: set[tuple[str, date]] = set()

    def ensure(self, table: Table, days: Iterable[date]) -> None:
        """Rows of these days find their partition, or else the "other" one."""
        missing = sorted(day for day in days if (table.name, day) not in self._known)
        if not missing:
            return
        if self._connection is None:
            self._connection = self._database.connect(autocommit=True)
        with translated(), self._connection.cursor() as cursor:
            for day in missing:
                cursor.execute("SELECT mobileye_data.add_partition(%s, %s)", (table.name, day))
                self._known.add((table.name, day))

    def forget(self) -> None:
        """Days may have been dropped since: looks at the database again from now on."""
        self._known.clear()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
