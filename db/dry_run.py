"""A load that is rehearsed: rows go into the tables, tell what would become of them, and are rolled back."""

from collections.abc import Sequence

from psycopg2.extensions import connection as Connection

from db.rejects import Stored
from db.sink import PostgresSink, PostgresTransaction
from db.writer import Writer
from processing.sink import Counts, Delivery

#: How many rejects of a file are kept to be shown.
MOST_REJECTS = 100


class DryRunTransaction(PostgresTransaction):
    """Does everything but the COMMIT."""

    rejects: Sequence[Stored] = ()

    def finish(self) -> list[Counts]:
        counts = super().finish()
        self.rejects = self.find_rejects(MOST_REJECTS)
        return counts

    def commit(self) -> list[Counts]:
        """Sees whether the ledger takes them: last, since who loads the same file waits from here on."""
        with self._waiting():
            self._enter()
        return []


class DryRunSink(PostgresSink):
    """A sink that keeps nothing."""

    gives_up_locks = False
    _last: DryRunTransaction | None = None

    @property
    def rejects(self) -> Sequence[Stored]:
        """The first rejects of the last transaction."""
        return self._last.rejects if self._last else ()

    def record_failure(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Noted nowhere."""

    def _begin(self, connection: Connection, writer: Writer) -> DryRunTransaction:
        self._last = DryRunTransaction(connection, writer, self._waiting)
        return self._last
