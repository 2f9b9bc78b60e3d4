"""A dry run: rows go into the tables, what became of them is counted, and all is rolled back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from db.connection import Database
from db.rejects import Stored
from db.sink import DelegatingTransaction, PostgresSink, PostgresTransaction
from db.tables import TABLES, Tables
from processing.sink import Counts, Delivery

#: Rejects that are kept to be shown.
MOST_REJECTS = 100


class DryRunSink:
    """Keeps nothing; rejects has the first ones of the last transaction."""

    def __init__(self, database: Database, tables: Tables = TABLES, max_future_hours: float = 0.0) -> None:
        self.rejects: Sequence[Stored] = ()
        self._sink = PostgresSink(database, tables=tables, max_future_hours=max_future_hours)

    @contextmanager
    def transaction(self, *, is_hasty: bool = False) -> Iterator["DryRunTransaction"]:
        """Begins a transaction that is never hasty: the person who waits has nothing else to do."""
        self.rejects = ()
        with self._sink.transaction() as transaction:
            yield DryRunTransaction(transaction, self)

    def record_failure(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Records nothing."""

    def close(self) -> None:
        self._sink.close()


class DryRunTransaction(DelegatingTransaction):
    """Does all but the COMMIT, and keeps the first rejects."""

    def __init__(self, inner: PostgresTransaction, sink: DryRunSink) -> None:
        super().__init__(inner)
        self._sink = sink

    def finish(self) -> list[Counts]:
        # Read here, not before COMMIT: a file with too many rejects never comes that far.
        counts = self.inner.finish()
        self._sink.rejects = self.inner.find_rejects(MOST_REJECTS)
        return counts

    def commit(self) -> list[Counts]:
        """Finds out whether the ledger takes the files; the rollback follows."""
        return self.inner.prepare()
