"""Rows into tables, a chunk at a time: by execute_values, by COPY, or around those that exist already."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from io import BytesIO

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extras import execute_values

from db import rejects, stage
from db.chunk import Chunk
from db.connection import RowRefused, translated
from db.latest import Latest
from db.ledger import Entry
from db.partitions import Partitions
from db.stage import Placed
from db.tables import Table
from processing.records import Kind, Parsed, Rejected, StatusReport

#: From so many rows on COPY is faster than execute_values (measured).
COPY_ROWS = 100

_CANCEL_SECONDS = 0.1


class Writer:
    """Writes the rows of one transaction.

    A full chunk is sent by a thread, while the next one is being parsed; the connection belongs to
    that thread until finish() has returned.
    """

    def __init__(self, connection: Connection, partitions: Partitions, sender: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._partitions = partitions
        self._sender = sender
        self._sending: Future[None] | None = None
        self._chunks: dict[str, Chunk] = {}
        self._latest = Latest()

    def add(self, entry: Entry, kind: Kind, parsed: Parsed) -> None:
        chunk = self._chunks.get(kind.name)
        if chunk is None:
            chunk = self._chunks[kind.name] = Chunk(kind)
        chunk.add(entry, parsed)
        if chunk.is_full():
            self._send(self._chunks.pop(kind.name))

    def finish(self) -> None:
        """Sends what is left, and the latest status of the vehicles that were heard of."""
        self.wait()
        for chunk in self._chunks.values():
            self._write(chunk)
        self._chunks.clear()
        self._flush_latest()

    def wait(self) -> None:
        """Until nothing is being sent; raises what the sending raised."""
        if self._sending is not None:
            sending, self._sending = self._sending, None
            sending.result()

    def abandon(self) -> None:
        """Stops what is being sent, whatever comes of it."""
        while self._sending is not None and not self._sending.done():
            # Between two statements there is nothing to cancel: hence again.
            with suppress(psycopg2.Error):
                self._connection.cancel()
            wait([self._sending], _CANCEL_SECONDS)

    def _send(self, chunk: Chunk) -> None:
        """By the thread, as soon as it has sent the chunk before."""
        # Written out here: the thread would have to fight for the interpreter, and the server wait for it.
        _ = chunk.text
        self.wait()
        self._sending = self._sender.submit(self._write, chunk)

    def _write(self, chunk: Chunk) -> None:
        self._partitions.ensure(chunk.table, chunk.days())
        try:
            with self._savepoint():
                self._insert(chunk)
        except RowRefused:
            self._write_carefully(chunk.kind, chunk.table, chunk.placed())
        else:
            self._accept(chunk)
        self._reject(chunk.rejected)
        if self._latest.is_full():
            self._flush_latest()

    def _insert(self, chunk: Chunk) -> None:
        """The fast way, which takes all rows or none."""
        table = chunk.table
        with self._connection.cursor() as cursor:
            if chunk.size >= COPY_ROWS:
                statement = f"COPY {table.full_name} ({table.list_columns()}) FROM STDIN"
                cursor.copy_expert(statement, BytesIO(chunk.text), size=len(chunk.text))
                return
            rows = [table.row(placed.record, placed.entry.file_id) for placed in chunk.placed()]
            statement = f"INSERT INTO {table.full_name} ({table.list_columns()}) VALUES %s"
            execute_values(cursor, statement, rows, page_size=COPY_ROWS)

    def _write_carefully(self, kind: Kind, table: Table, rows: list[Placed]) -> None:
        """The way for rows of which some exist, or are refused: those are found by halving."""
        try:
            with self._savepoint(), self._connection.cursor() as cursor:
                existing = stage.insert_new(cursor, table, [(row.record, row.entry.file_id) for row in rows])
        except RowRefused as refusal:
            if len(rows) > 1:
                middle = len(rows) // 2
                self._write_carefully(kind, table, rows[:middle])
                self._write_carefully(kind, table, rows[middle:])
            else:
                self._reject([rows[0].rejected(kind, "refused", str(refusal))])
            return
        conflicts = {row.index: row for row in existing if not row.is_same}
        for row in existing:
            rows[row.index].entry.duplicate += row.is_same
        self._reject([rows[i].rejected(kind, "conflict", row.detail) for i, row in conflicts.items()])
        for index, placed in enumerate(rows):
            if index not in conflicts:
                self._latest.take(placed.record, placed.entry.file_id)

    def _flush_latest(self) -> None:
        with translated(), self._connection.cursor() as cursor:
            self._latest.flush(cursor)

    def _accept(self, chunk: Chunk) -> None:
        if chunk.kind.record is StatusReport:
            for entry, parsed in chunk.elements:
                for record in parsed.records:
                    self._latest.take(record, entry.file_id)

    def _reject(self, rejected: list[tuple[Entry, Rejected]]) -> None:
        for entry, _ in rejected:
            entry.rejected += 1
        with translated(), self._connection.cursor() as cursor:
            rejects.add(cursor, rejected)

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        """What fails within is undone, and the transaction goes on."""
        with translated(), self._connection.cursor() as cursor:
            cursor.execute("SAVEPOINT chunk")
        try:
            with translated():
                yield
        except RowRefused:
            with translated(), self._connection.cursor() as cursor:
                cursor.execute("ROLLBACK TO SAVEPOINT chunk")
            raise
        with translated(), self._connection.cursor() as cursor:
            cursor.execute("RELEASE SAVEPOINT chunk")
