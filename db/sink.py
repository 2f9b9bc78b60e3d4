"""PostgreSQL as the place where rows go: one transaction for each batch of files."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import ParamSpec, TypeVar

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS
from psycopg2.extensions import connection as Connection

from db import ledger, rejects
from db.connection import Database, RowRefused, translate_errors
from db.ledger import Entry
from db.partitions import Partitions
from db.rejects import Stored
from db.writer import Met, Writer
from processing.errors import DatabaseUnavailable, Refused
from processing.records import Kind, Parsed
from processing.sink import Counts, Delivery

#: A transaction of small files waits for a lock no longer than this: long enough for the server to find a
#: deadlock (deadlock_timeout, 1 s), which is repeated at once.
HASTY = "SET LOCAL lock_timeout = '2s';"

#: A transaction that has nothing to send for so long says so; the server ends it after ten minutes.
IDLE_SECONDS = 60.0

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

    #: Of a hasty transaction; a person who waits at a command has nothing else to do.
    gives_up_locks = True

    def __init__(
        self, database: Database, waiting: Waiting = nullcontext, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._database = database
        self._idle_seconds = idle_seconds
        self._writer: Writer | None = None
        self._waiting = waiting
        self._connection: Connection | None = None
        self._partitions = Partitions(database)
        self._met = Met()
        self._sender = _Sender(waiting)

    @contextmanager
    def transaction(self, *, is_hasty: bool = False) -> Iterator["PostgresTransaction"]:
        """Rolls back unless it was committed; after a rollback nothing of the connection is trusted."""
        with self._waiting():
            connection = self._open()
        writer = self._writer = Writer(connection, self._partitions, self._sender, self._met)
        transaction = self._begin(connection, writer)
        transaction.is_hasty = is_hasty and self.gives_up_locks
        try:
            yield transaction
        finally:
            self._writer = None
            with self._waiting():
                transaction.stop()
                if not transaction.committed:
                    self._drop()

    def keep_alive(self) -> None:
        """Must be called with each step in reading: a file may have no rows for longer than a session may be
        idle in its transaction, such as one of blanks."""
        if self._writer is not None:
            self._writer.keep_alive(self._idle_seconds)

    def record_failure(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Notes that a file can't be loaded, durably."""
        with self.transaction(is_hasty=True) as transaction:
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
        self.is_hasty = False
        self.committed = False

    def loaded(self, digests: Sequence[bytes]) -> set[bytes]:
        """Returns the digests that the ledger has as loaded, and draws ids for the other files."""
        with self._waiting(), translate_errors():
            loaded = ledger.loaded(self._cursor, digests, HASTY if self.is_hasty else "")
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
            if self.is_hasty:
                self._cursor.execute(HASTY)
            ledger.fail(self._cursor, delivery, kind, reason)

    def finish(self) -> list[Counts]:
        """Writes what is left."""
        with self._waiting():
            self._writer.finish()
        return [entry.counts for entry in self._entries]

    def find_rejects(self, most: int) -> list[Stored]:
        """The first rejects of its files, once it is finished."""
        with translate_errors():
            return rejects.of_files(self._cursor, [entry.file_id for entry in self._entries], most)

    def commit(self) -> list[Counts]:
        """Writes what is left and the ledger entries, then COMMIT."""
        counts = self.finish()
        with self._waiting():
            self._commit()
        self.committed = True
        return counts

    def _commit(self) -> None:
        with translate_errors():
            self._enter()
            # COMMIT of a transaction that has failed "succeeds", as a rollback.
            if self._connection.info.transaction_status != TRANSACTION_STATUS_INTRANS:
                raise DatabaseUnavailable("the transaction was lost before COMMIT")
            self._connection.commit()

    def _enter(self) -> None:
        """Enters into the ledger the files that were loaded, and those that came again."""
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
    """Translates errors of the ledger and of rejects: what is refused there is no row."""
    try:
        with translate_errors():
            yield
    except RowRefused as refusal:
        raise Refused(f"the ledger refuses the file: {refusal}") from None
