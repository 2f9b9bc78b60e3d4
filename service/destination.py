"""The port to where the rows go, as the daemon sees it: who loads into it, and whether it is well."""

from collections.abc import Callable
from contextlib import closing
from typing import Protocol

from db.connection import Database, translate_errors
from service.events import Resource
from service.pool import Pool

#: Writes a row, to be rolled back: a server that reads but can't write is not well.
_QUESTION = """
    SET LOCAL lock_timeout = '2s';
    SET LOCAL statement_timeout = '5s';
    INSERT INTO mobileye_data.ingested_files (file_id, name, last_name, size, state, started_at, error)
    VALUES (nextval('mobileye_data.file_ids'), '', '', 0, 'failed', now(), 'a probe, rolled back')
"""


class Destination(Protocol):
    """A place for rows: a database, or the topics of a broker."""

    @property
    def resource(self) -> Resource:
        """The name of it in an outage."""

    def make_pool(self) -> Pool:
        """Returns a pool of workers that load into it."""

    def has_moved(self) -> bool:
        """Starts it if that is for us to do; returns whether it is elsewhere. Raises DatabaseUnavailable."""

    def ask(self) -> None:
        """Returns if it could take rows now; raises DatabaseUnavailable or Misconfigured."""


class DatabaseDestination:
    """PostgreSQL, which may come back under another port if it is the embedded one."""

    resource = Resource.DATABASE

    def __init__(
        self,
        database: Database,
        ensure_running: Callable[[], Database],
        make_pool: Callable[[Database], Pool],
    ) -> None:
        self._database = database
        self._ensure_running = ensure_running
        self._make_pool = make_pool

    def make_pool(self) -> Pool:
        return self._make_pool(self._database)

    def has_moved(self) -> bool:
        before, self._database = self._database, self._ensure_running()
        return self._database != before

    def ask(self) -> None:
        ask_to_write(self._database)


def ask_to_write(database: Database) -> None:
    """Returns if a database could take rows now, over a connection of its own."""
    with (
        closing(database.connect()) as connection,
        translate_errors(),
        connection.cursor() as cursor,
    ):
        cursor.execute(_QUESTION)
        connection.rollback()
