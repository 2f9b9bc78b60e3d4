"""PostgreSQL as the place where rows go: one transaction for each batch of files."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import ParamSpec, TypeVar

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS
from psycopg2.extensions import connection as Connection

from db import ledger, rejects
from db.connection import Database, RowRefused, translated
from db.ledger import Entry
from db.partitions import Partitions
from db.rejects import Stored
from db.writer import Met, Writer
from processing.errors import DatabaseUnavailable, Refused
from processing.records import Kind, Parsed
from processing.sink import Counts, Delivery

#: Entered while the database has the next word.
Waiting = Callable[[], AbstractContextManager[None]]

P = ParamSpec("P")
T = TypeVar("T")


class _Sender(ThreadPoolExecutor):
    """The one thread that sends; all that it does is for the database."""

    def __init__(self, waiting: Waiting) -> None:
        super().__init__(max_workers=1, thread_name_prefix="sender")
        self._waiting = waiting

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        def send() -> T:
            with self._waiting():
                return fn(*args, **kwargs)

        return super().submit(send)


class PostgresSink:
    """Keeps one connection for its transactions, and makes a new one after any trouble with it."""

    def __init__(self, database: Database, waiting: Waiting = nullcontext) -> None:
        self._database = database
        self._waiting = waiting
        self._connection: Connection | None = None
        self._partitions = Partitions(database)
        self._met = Met()
        self._sender = _Sender(waiting)

    @contextmanager
    def transaction(self) -> Iterator["PostgresTransaction"]:
        """Rolls back unless it was committed; after a rollback nothing of the connection is trusted."""
        with self._waiting():
            connection = self._open()
        writer = Writer(connection, self._partitions, self._sender, self._met)
        transaction = self._begin(connection, writer)
        try:
            yield transaction
        finally:
            with self._waiting():
                transaction.stop()
                if not transaction.committed:
                    self._drop()

    def record_failure(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Notes that a file can't be loaded, durably."""
        with self.transaction() as transaction:
            transaction.fail(delivery, kind, reason)
            transaction.commit()

    def close(self) -> None:
        self._drop()
        self._sender.shutdown()

    def _begin(self, connection: Connection, writer: Writer) -> "PostgresTransaction":
        return PostgresTransaction(connection, writer, self._waiting)

    def _open(self) -> Connection:
        self._partitions.forget()
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _drop(self) -> None:
        self._partitions.close()
        if self._connection is not None:
            with suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None


class PostgresTransaction:
    """Rows of one or more files and their ledger entries, all or nothing."""

    def __init__(self, connection: Connection, writer: Writer, waiting: Waiting) -> None:
        self._connection = connection
        self._waiting = waiting
        self._cursor = connection.cursor()
        self._writer = writer
        self._file_ids: list[int] = []
        self._entries: list[Entry] = []
        self._redelivered: list[Delivery] = []
        self._kind: Kind | None = None
        self.committed = False

    def loaded(self, digests: Sequence[bytes]) -> set[bytes]:
        """Those of the digests that the ledger has as loaded; draws ids for the other files."""
        with self._waiting(), translated():
            loaded = ledger.loaded(self._cursor, digests)
            new = len(set(digests) - loaded)
            if new:
                self._file_ids, self._writer.ruled = ledger.draw_file_ids(self._cursor, new)
        return loaded

    def begin_file(self, delivery: Delivery, kind: Kind) -> None:
        self._kind = kind
        self._entries.append(Entry(self._file_ids.pop(), delivery, kind.name))

    def write(self, parsed: Parsed) -> None:
        assert self._kind is not None
        entry = self._entries[-1]
        entry.read += len(parsed.records) + len(parsed.rejected)
        self._writer.add(entry, self._kind, parsed)

    def redelivered(self, delivery: Delivery) -> None:
        """Kept until the entries are there: the same bytes may have come twice in this transaction."""
        self._redelivered.append(delivery)

    def fail(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        with self._waiting(), _written():
            ledger.fail(self._cursor, delivery, kind, reason)

    def finish(self) -> list[Counts]:
        """Writes what is left."""
        with self._waiting():
            self._writer.finish()
        return [entry.counts for entry in self._entries]

    def find_rejects(self, most: int) -> list[Stored]:
        """The first rejects of its files, once it is finished."""
        with translated():
            return rejects.of_files(self._cursor, [entry.file_id for entry in self._entries], most)

    def commit(self) -> list[Counts]:
        """Writes what is left and the ledger entries, then COMMIT."""
        counts = self.finish()
        with self._waiting():
            self._commit()
        self.committed = True
        return counts

    def _commit(self) -> None:
        with translated():
            self._enter()
            # COMMIT of a transaction that has failed "succeeds", as a rollback.
            if self._connection.info.transaction_status != TRANSACTION_STATUS_INTRANS:
                raise DatabaseUnavailable("the transaction was lost before COMMIT")
            self._connection.commit()

    def _enter(self) -> None:
        """Into the ledger: the files that were loaded, and those that have come again."""
        with _written():
            if self._entries:
                ledger.add(self._cursor, self._entries)
            for delivery in sorted(self._redelivered, key=lambda delivery: delivery.sha256 or b""):
                ledger.redelivered(self._cursor, delivery)

    def stop(self) -> None:
        """Leaves no thread at work on the connection."""
        self._writer.abandon()


@contextmanager
def _written() -> Iterator[None]:
    """What the ledger refuses is no row."""
    try:
        with translated():
            yield
    except RowRefused as refusal:
        raise Refused(f"the ledger refuses the file: {refusal}") from None
