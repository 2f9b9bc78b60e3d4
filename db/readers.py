"""A small pool of connections for reading: none can change anything, and each statement has a time limit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import BoundedSemaphore
from typing import TypeVar

import psycopg2
from psycopg2.extensions import connection as Connection

from db.connection import Cancelled, Database, translate_errors
from db.patience import ask
from db.schema import apply_or_check
from db.session import is_pooled, limit_statements, make_read_only
from processing.errors import DatabaseUnavailable

#: The server ends a statement itself; beyond that it does not answer at all.
_GRACE_SECONDS = 5.0

T = TypeVar("T")


class Readers:
    """Connections that threads share, at most `most` at once; one that fails is not used again."""

    def __init__(self, database: Callable[[], Database], seconds: float, most: int = 3) -> None:
        """Connects to nothing."""
        self._database = database
        self._seconds = seconds
        self._free = BoundedSemaphore(most)
        self._idle: list[Connection] = []

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Returns the answer; raises DatabaseUnavailable, also after the time limit, or Misconfigured."""
        with self._lent() as connection:
            try:
                with translate_errors():
                    return ask(
                        connection, lambda: question(connection), seconds=self._seconds + _GRACE_SECONDS
                    )
            except Cancelled:
                raise DatabaseUnavailable(f"it has no answer within {self._seconds:g} s") from None

    def close(self) -> None:
        """Closes the connections that nobody uses."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    @contextmanager
    def _lent(self) -> Iterator[Connection]:
        with self._free:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
                with translate_errors():
                    connection.rollback()
            except BaseException:
                with suppress(psycopg2.Error):
                    connection.close()
                self.close()  # after a restart of the server none of them works
                raise
            self._idle.append(connection)

    def _connect(self) -> Connection:
        connection = self._database().connect(may_be_read_only=True)
        try:
            make_read_only(connection)
            limit_statements(connection, self._seconds)
            ask(connection, lambda: _begin(connection))
        except BaseException:
            connection.close()
            raise
        return connection


def _begin(connection: Connection) -> None:
    """Looks for our tables; gives the session a name, so that it is not taken for a daemon's."""
    apply_or_check(connection)
    if not is_pooled(connection):
        with connection, connection.cursor() as cursor:
            cursor.execute("SET application_name = 'mobileye-reading'")
