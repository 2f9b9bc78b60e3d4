"""Rows into tables, a chunk at a time: by execute_values, by COPY, or around those that exist already."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db import rejects, stage
from db.chunk import Chunk
from db.connection import KeyExists, RowRefused, translated
from db.insert import COPY_ROWS, copy_rows, insert_rows
from db.latest import Latest
from db.ledger import Entry
from db.partitions import Partitions
from db.rows import copy_data
from db.stage import Existing, Placed
from db.tables import Table
from processing.errors import TryAgain
from processing.records import Kind, Parsed, Rejected

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
        self._overlapping: set[str] = set()

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
        # Made here: the thread would have to fight for the interpreter, and the server wait for it.
        _ = chunk.data
        self.wait()
        self._sending = self._sender.submit(self._write, chunk)

    def _write(self, chunk: Chunk) -> None:
        if chunk.elements:
            self._partitions.ensure(chunk.table, chunk.packed.dates())
            if chunk.table.name in self._overlapping or not self._inserted(chunk):
                self._merge(chunk.kind, chunk.table, chunk.placed())
        self._reject(chunk.rejected)
        if self._latest.is_full():
            self._flush_latest()

    def _inserted(self, chunk: Chunk) -> bool:
        """Whether the fast way, which takes all rows or none, has taken them."""
        try:
            with self._savepoint() as cursor:
                if chunk.size >= COPY_ROWS:
                    copy_rows(cursor, chunk.table, chunk.data, len(chunk.packed.rows))
                else:
                    insert_rows(cursor, chunk.table, chunk.table_rows())
        except RowRefused:
            return False
        for entry, parsed in chunk.elements:
            self._latest.take(parsed.records, entry.file_id)
        return True

    def _merge(self, kind: Kind, table: Table, rows: list[Placed]) -> None:
        """The way for rows of which some exist, or are refused."""
        firsts, others = stage.first_of_each_key(table, rows)
        self._merge_distinct(kind, table, firsts)
        if others:
            self._merge_distinct(kind, table, others)

    def _merge_distinct(self, kind: Kind, table: Table, rows: list[Placed]) -> None:
        """Rows of different keys, or of keys that exist; what is refused is found by halving."""
        try:
            existing = self._insert_around_existing(table, rows)
        except KeyExists:
            raise TryAgain("another process has written one of the keys") from None
        except RowRefused as refusal:
            if len(rows) > 1:
                middle = len(rows) // 2
                self._merge_distinct(kind, table, rows[:middle])
                self._merge_distinct(kind, table, rows[middle:])
            else:
                self._reject([rows[0].rejected(kind, "refused", str(refusal))])
            return
        self._count_existing(kind, table, rows, existing)

    def _insert_around_existing(self, table: Table, rows: list[Placed]) -> list[Existing]:
        with self._savepoint() as cursor:
            existing = stage.find_existing(cursor, table, rows)
            known = {row.index for row in existing}
            new = [row.packed for index, row in enumerate(rows) if index not in known]
            if new:
                copy_rows(cursor, table, copy_data(new), len(new))
        return existing

    def _count_existing(self, kind: Kind, table: Table, rows: list[Placed], existing: list[Existing]) -> None:
        # Where one chunk met rows that exist, the next one will too: the fast way would fail in its middle.
        (self._overlapping.add if existing else self._overlapping.discard)(table.name)
        conflicts = {row.index: row.detail for row in existing if not row.is_same}
        for row in existing:
            rows[row.index].entry.duplicate += row.is_same
        self._reject([rows[index].rejected(kind, "conflict", detail) for index, detail in conflicts.items()])
        for index, placed in enumerate(rows):
            if index not in conflicts:
                self._latest.take([placed.record], placed.entry.file_id)

    def _flush_latest(self) -> None:
        with translated(), self._connection.cursor() as cursor:
            self._latest.flush(cursor)

    def _reject(self, rejected: list[tuple[Entry, Rejected]]) -> None:
        for entry, _ in rejected:
            entry.rejected += 1
        with translated(), self._connection.cursor() as cursor:
            rejects.add(cursor, rejected)

    @contextmanager
    def _savepoint(self) -> Iterator[Cursor]:
        """What fails within is undone, and the transaction goes on."""
        with translated(), self._connection.cursor() as cursor:
            cursor.execute("SAVEPOINT chunk")
            try:
                with translated():
                    yield cursor
            except RowRefused:
                cursor.execute("ROLLBACK TO SAVEPOINT chunk")
                raise
            cursor.execute("RELEASE SAVEPOINT chunk")
