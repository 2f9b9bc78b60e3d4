"""PostgreSQL as a sink: one transaction for each batch of files."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import ParamSpec, TypeVar

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS
from psycopg2.extensions import connection as Connection

from db import ledger, rejects
from db.connection import Database, RowRefused, translate_errors
from db.ledger import Entry
from db.partitions import Partitions
from db.patience import CancelRequest, ask, cut
from db.rejects import Stored
from db.session import Session
from db.tables import TABLES, Tables
from db.writer import Met, Writer
from processing.errors import DatabaseUnavailable, Refused
from processing.records import Kind, Parsed
from processing.sink import Counts, Delivery, FirstReject, Participant

#: A transaction of small files waits for a lock no longer than this: long enough for the server to find a
#: deadlock (deadlock_timeout, 1 s), which is repeated at once. It takes moments: one that sends nothing for
#: long is of a daemon that is frozen, and others wait for the rows that it has locked.
HASTY = "SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '30s';"

#: The same for a large file whose bytes are at hand before its transaction, which sends something this often.
AT_HAND = "SET LOCAL idle_in_transaction_session_timeout = '30s';"
AT_HAND_SECONDS = 10.0

#: A transaction that has sent nothing for this long sends something; the server ends an idle one after ten
#: minutes.
IDLE_SECONDS = 60.0

#: A kept connection that does not answer in this time is taken for a dead one.
_LOOK_SECONDS = 2.0

#: Entered while an answer of the database is awaited.
Waiting = Callable[[], AbstractContextManager[None]]

P = ParamSpec("P")
T = TypeVar("T")


class _Sender(ThreadPoolExecutor):
    """The one thread that sends; all that it does waits for the database."""

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

    def __init__(
        self,
        database: Database,
        waiting: Waiting = nullcontext,
        idle_seconds: float = IDLE_SECONDS,
        participants: Sequence[Participant["PostgresTransaction"]] = (),
        tables: Tables = TABLES,
        max_future_hours: float = 0.0,
        hasty: str = HASTY,
        patient: str = "",
        seconds_left: Callable[[], float] | None = None,
    ) -> None:
        """Rejects records that are dated more hours ahead of the database's clock; 0: there is no bound.

        hasty has the settings of hasty transactions, patient those of others. A transaction asks for the
        seconds that are left when it begins: the server ends a statement that takes longer.
        """
        self._database = database
        self._hasty = hasty
        self._patient = patient
        self._idle_seconds = idle_seconds
        self._participants = participants
        self._tables = tables
        self._max_future_hours = max_future_hours
        self._seconds_left = seconds_left
        self._writer: Writer | None = None
        self._waiting = waiting
        self._connection: Connection | None = None
        self._cancel_request: CancelRequest | None = None
        self._partitions = Partitions(database)
        self._met = Met()
        self._sender = _Sender(waiting)

    @contextmanager
    def transaction(self, *, is_hasty: bool = False) -> Iterator["PostgresTransaction"]:
        """Begins a transaction that rolls back unless it was committed."""
        settings = (self._hasty if is_hasty else self._patient) + self._limit()
        with self._waiting():
            self._partitions.forget()
            connection = self._connection or self._connect()
        writer = self._writer = Writer(
            connection, self._partitions, self._sender, self._met, self._tables, self._max_future_hours
        )
        transaction = PostgresTransaction(connection, writer, self._waiting, self._participants, settings)
        try:
            yield transaction
        finally:
            self._writer = None
            if not transaction.committed:
                with self._waiting():
                    # The thread first: it must not be at work on a connection that is closed. After a
                    # rollback nothing of the connection is trusted.
                    writer.abandon()
                    self._drop()
            self._partitions.release()

    def keep_alive(self) -> None:
        """Keeps the session of the open transaction from being ended as idle.

        To be called with each step in reading: a file may have no rows for very long, one of blanks for
        example.
        """
        if self._writer is not None:
            self._writer.keep_alive(self._idle_seconds)

    def record_failure(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Records durably that a file can't be loaded."""
        with self.transaction(is_hasty=True) as transaction:
            transaction.fail(delivery, kind, reason)
            transaction.commit()

    def prepare(self, check: Callable[[Session], None]) -> None:
        """Makes sure of a connection that answers: the kept one may have died while the process was frozen.

        A new one is checked first; what the check raises is passed on.
        """
        if self._connection is not None:
            try:
                ask(self._connection, partial(_look, self._connection), seconds=_LOOK_SECONDS)
                return
            except DatabaseUnavailable:
                self._drop()
        try:
            check(self._connect())
        except BaseException:
            self._drop()
            raise

    def cancel(self, seconds: float) -> None:
        """Ends the statement that is waited for, if one is; to be called by another thread."""
        if (cancel_request := self._cancel_request) is not None:
            cancel_request.send(seconds)

    def interrupt(self) -> None:
        """Ends what another thread waits for, as if the server had gone."""
        if self._connection is not None:
            cut(self._connection)

    def close(self) -> None:
        """Releases connections and the thread."""
        self._drop()
        self._sender.shutdown()

    def _connect(self) -> Session:
        session = self._connection = self._database.connect()
        self._cancel_request = CancelRequest(session)
        return session

    def _limit(self) -> str:
        if self._seconds_left is None:
            return ""
        return f"SET LOCAL statement_timeout = '{max(1, round(1000 * self._seconds_left()))}ms';"

    def _drop(self) -> None:
        self._cancel_request = None
        self._partitions.close()
        if self._connection is not None:
            with suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None


class PostgresTransaction:
    """Rows of one or more files and their ledger entries, all or nothing.

    Participants and wrappers use its cursor and its entries.
    """

    def __init__(
        self,
        connection: Connection,
        writer: Writer,
        waiting: Waiting,
        participants: Sequence[Participant["PostgresTransaction"]],
        setting: str,
    ) -> None:
        self.cursor = connection.cursor()
        self.entries: list[Entry] = []
        self.committed = False
        self._connection = connection
        self._writer = writer
        self._waiting = waiting
        self._participants = participants
        self._setting = setting
        self._file_ids: list[int] = []
        self._new_files = 0
        self._redelivered: list[Delivery] = []
        self._kind: Kind | None = None

    def loaded(self, digests: Sequence[bytes]) -> set[bytes]:
        """Returns those of the digests that the ledger has as loaded."""
        with self._waiting(), translate_errors():
            loaded = ledger.loaded(self.cursor, digests, self._setting)
        self._new_files = len(set(digests) - loaded)
        return loaded

    def begin_file(self, delivery: Delivery, kind: Kind) -> None:
        """Begins a file that is not loaded; the first one draws the ids of all."""
        if not self._file_ids:
            with self._waiting(), translate_errors():
                self._writer.wait()  # until then the connection may be the sender's
                count = max(1, self._new_files - len(self.entries))
                self._file_ids, ruled, now = ledger.draw_file_ids(self.cursor, count, self._writer.tables)
                self._writer.prepare(ruled, now)
        self._kind = kind
        self.entries.append(Entry(self._file_ids.pop(), delivery, kind.name))

    def write(self, parsed: Parsed) -> None:
        """Takes records and rejects of the file that was begun last."""
        assert self._kind is not None
        entry = self.entries[-1]
        entry.read += len(parsed.records) + len(parsed.rejected)
        entry.empty += parsed.empty
        self._writer.add(entry, self._kind, parsed)

    def keep(self, extra: str) -> None:
        """Keeps the fields beside the array in the entry of the file that was begun last."""
        self.entries[-1].extra = extra

    def redelivered(self, delivery: Delivery) -> None:
        """Counts one more arrival, in commit(): the bytes may have come twice in this transaction."""
        self._redelivered.append(delivery)

    def fail(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Enters a file that can't be loaded."""
        with self._waiting(), _no_row_is_refused("the ledger refuses"):
            if self._setting:
                self.cursor.execute(self._setting)
            ledger.fail(self.cursor, delivery, kind, reason)

    def finish(self) -> list[Counts]:
        """Sends the rows that are left; called again, it has none left."""
        with self._waiting():
            self._writer.finish()
        return [entry.counts for entry in self.entries]

    def first_rejects(self) -> list[FirstReject | None]:
        """Returns the first reject of each of its files; complete once it is finished."""
        return [entry.first_reject for entry in self.entries]

    def find_rejects(self, most: int) -> list[Stored]:
        """Returns the first rejects of its files; complete once it is finished."""
        with self._waiting(), translate_errors():
            return rejects.of_files(self.cursor, [entry.file_id for entry in self.entries], most)

    def prepare(self) -> list[Counts]:
        """Does everything but COMMIT.

        The ledger comes late: a transaction that loads the same file waits from here on. It comes before the
        participants, whose rows may refer to it. The counts by hour come last: every transaction that loads
        the same hours waits from here on.
        """
        counts = self.finish()
        with self._waiting(), _no_row_is_refused("the ledger refuses"):
            if self.entries:
                ledger.add(self.cursor, self.entries)
            for delivery in sorted(self._redelivered, key=lambda delivery: delivery.sha256 or b""):
                ledger.redelivered(self.cursor, delivery)
        for participant in self._participants:
            with self._waiting(), translate_errors():
                participant.before_commit(self)
        with self._waiting(), _no_row_is_refused("the counts by hour refuse"):
            self._writer.add_hours()
        return counts

    def commit(self) -> list[Counts]:
        """Prepares, then COMMIT."""
        counts = self.prepare()
        with self._waiting(), translate_errors():
            # COMMIT of a transaction that has failed "succeeds", as a rollback.
            if self._connection.info.transaction_status != TRANSACTION_STATUS_INTRANS:
                raise DatabaseUnavailable("the transaction was lost before COMMIT")
            self._connection.commit()
        self.committed = True
        return counts


def _look(connection: Connection) -> None:
    with translate_errors(), connection, connection.cursor() as cursor:
        cursor.execute("SELECT")


@contextmanager
def _no_row_is_refused(what: str) -> Iterator[None]:
    """Translates errors; a refusal by the ledger, for example, is not that of a row."""
    try:
        with translate_errors():
            yield
    except RowRefused as refusal:
        raise Refused(f"{what} the file: {refusal}") from None


class DelegatingTransaction:
    """Passes every call on to a transaction of PostgreSQL; subclasses change what they have to."""

    def __init__(self, inner: PostgresTransaction) -> None:
        self.inner = inner

    def loaded(self, digests: Sequence[bytes]) -> set[bytes]:
        return self.inner.loaded(digests)

    def begin_file(self, delivery: Delivery, kind: Kind) -> None:
        self.inner.begin_file(delivery, kind)

    def write(self, parsed: Parsed) -> None:
        self.inner.write(parsed)

    def keep(self, extra: str) -> None:
        self.inner.keep(extra)

    def redelivered(self, delivery: Delivery) -> None:
        self.inner.redelivered(delivery)

    def finish(self) -> list[Counts]:
        return self.inner.finish()

    def first_rejects(self) -> list[FirstReject | None]:
        return self.inner.first_rejects()

    def commit(self) -> list[Counts]:
        return self.inner.commit()
