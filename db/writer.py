"""Writes rows into tables, a chunk at a time: by COPY, or around those that exist already."""

import time
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from psycopg2.extensions import connection as Connection

from db import rejects
from db.chunk import Chunk
from db.conflicts import ConflictResolver
from db.connection import RowRefused, savepoint, translate_errors
from db.hourly_counts import HourlyCounts
from db.insert import copy_rows
from db.latest_status import LatestStatus
from db.ledger import Entry
from db.partitions import Partitions
from db.patience import cancel, cut
from db.tables import TABLES, Table, Tables
from processing.errors import TryAgain
from processing.records import Kind, Parsed, Rejected

_CANCEL_SECONDS = 0.1

#: A statement that is not cancelled in this time has a server that does not answer.
_PATIENCE_SECONDS = 3.0


@dataclass
class Met:
    """Obstacles that the last rows met, and the next ones will, too: it outlives the transaction.

    overlapping names the tables in which rows existed; status_refuses: vehicle_status did not
    take a report.
    """

    overlapping: set[str] = field(default_factory=set)
    status_refuses: bool = False


class Writer:
    """Writes the rows of one transaction.

    A full chunk is sent by a thread, while the next one is being parsed; the connection belongs to
    that thread until finish() has returned. ruled names the tables with a rule: rows go there one by one.
    """

    def __init__(
        self,
        connection: Connection,
        partitions: Partitions,
        sender: ThreadPoolExecutor,
        met: Met,
        tables: Tables = TABLES,
        max_future_hours: float = 0.0,
    ) -> None:
        self._max_future_hours = max_future_hours
        self._latest: datetime | None = None
        self._connection = connection
        self._partitions = partitions
        self._sender = sender
        self._sending: Future[None] | None = None
        self._chunks: dict[str, Chunk] = {}
        self._latest_status = LatestStatus()
        self._hourly_counts = HourlyCounts()
        self.tables = tables
        self.ruled: set[str] = set()
        self._met = met
        self._shows_status = met.status_refuses
        self._has_refused = False
        self._sent_at = time.monotonic()

    def prepare(self, ruled: set[str], now: datetime) -> None:
        """Takes what the database says before the first row: its tables with a rule, and its time."""
        self.ruled = ruled
        if self._max_future_hours:
            self._latest = now + timedelta(hours=self._max_future_hours)

    def add(self, entry: Entry, kind: Kind, parsed: Parsed) -> None:
        chunk = self._chunks.get(kind.name)
        if chunk is None:
            chunk = self._chunks[kind.name] = Chunk(kind, self.tables[kind.name])
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
        if self._shows_status and not self._has_refused:
            self._met.status_refuses = False

    def add_hours(self) -> None:
        """Adds what was inserted to the counts by hour; nothing but COMMIT may follow."""
        with translate_errors(), self._connection.cursor() as cursor:
            self._hourly_counts.flush(cursor)

    def wait(self) -> None:
        """Waits until nothing is being sent; raises what the sending raised."""
        if self._sending is not None:
            sending, self._sending = self._sending, None
            sending.result()

    def keep_alive(self, seconds: float) -> None:
        """Sends a query if nothing was sent for that long: the server would end the session as idle."""
        before = self._sending
        if time.monotonic() - self._sent_at >= seconds and (before is None or before.done()):
            self._sent_at = time.monotonic()
            self._sending = self._sender.submit(self._touch, before)

    def _touch(self, before: Future[None] | None) -> None:
        if before is not None:
            before.result()  # what it raised is not lost
        with translate_errors(), self._connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    def abandon(self) -> None:
        """Stops what is being sent, whatever comes of it."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._sending is not None and not self._sending.done():
            # Between two statements there is nothing to cancel: hence again.
            (cancel if time.monotonic() < deadline else cut)(self._connection)
            wait([self._sending], _CANCEL_SECONDS)

    def _send(self, chunk: Chunk) -> None:
        """Hands the chunk to the thread, as soon as it has sent the one before."""
        # Made here: the thread would have to fight for the interpreter, and the server wait for it.
        _ = chunk.data, chunk.hours
        self.wait()
        self._sending = self._sender.submit(self._write, chunk)
        self._sent_at = time.monotonic()

    def _write(self, chunk: Chunk) -> None:
        if chunk.packed.rows:
            table, dates = chunk.table, chunk.packed.dates()
            ahead: dict[int, tuple[str, str]] = {}
            if self._latest is not None and dates[-1] >= self._latest.date():
                ahead = self._dated_ahead(chunk, self._latest)
                dates = [day for day in dates if day <= self._latest.date()]
            self._partitions.ensure(self._connection, table, dates)
            is_bound_to_fail = ahead or table.name in self._met.overlapping or table.name in self.ruled
            if is_bound_to_fail or self._shows_status_of(table) or not self._insert(chunk):
                self._merge(chunk, ahead)
        if chunk.rejected:
            self._reject(chunk.rejected)
        if self._latest_status.is_full():
            self._flush_latest()
        if self._hourly_counts.is_full():
            with translate_errors(), self._connection.cursor() as cursor:
                self._hourly_counts.spill(cursor)

    def _dated_ahead(self, chunk: Chunk, latest: datetime) -> dict[int, tuple[str, str]]:
        """Returns the rows that are rejected: they would stay the latest of their vehicles for years."""
        detail = (
            f"Expected a time at most {self._max_future_hours:g} hours ahead of the database's clock "
            "(MAX_FUTURE_HOURS), got a later one"
        )
        times = (chunk.table.time(record) for _, records in chunk.records() for record in records)
        return {index: ("invalid", detail) for index, time in enumerate(times) if time > latest}

    def _shows_status_of(self, table: Table) -> bool:
        return self._shows_status and table.has_latest

    def _insert(self, chunk: Chunk) -> bool:
        """The fast way, which takes all rows or none; whether it took them."""
        try:
            with savepoint(self._connection) as cursor:
                copy_rows(cursor, chunk.table, chunk.data, len(chunk.order))
        except RowRefused:
            return False
        self._hourly_counts.add(chunk)
        self._accept(chunk)
        return True

    def _merge(self, chunk: Chunk, ahead: Mapping[int, tuple[str, str]]) -> None:
        shows_status = self._shows_status_of(chunk.table)
        is_ruled = chunk.table.name in self.ruled
        merge = ConflictResolver(self._connection, chunk, shows_status=shows_status, is_ruled=is_ruled)
        merge.rejects |= ahead
        merge.run()
        # Where one chunk met rows that exist, the next one will too: the fast way would fail half-way.
        reasons = {reason for reason, _ in merge.rejects.values()}
        overlaps, overlapping = merge.duplicates or "conflict" in reasons, self._met.overlapping
        (overlapping.add if overlaps else overlapping.discard)(chunk.table.name)
        self._has_refused |= "refused" in reasons
        for index in merge.duplicates:
            chunk.entry(index).duplicate += 1
        self._hourly_counts.add(chunk, {*merge.duplicates, *merge.rejects})
        self._reject(chunk.rejects(merge.rejects))
        if not shows_status:
            self._accept(chunk, merge.rejects)

    def _accept(self, chunk: Chunk, rejected: Container[int] = ()) -> None:
        for _, records in chunk.records(rejected):
            self._latest_status.observe(chunk.table, records)

    def _flush_latest(self) -> None:
        try:
            with translate_errors(), self._connection.cursor() as cursor:
                self._latest_status.flush(cursor)
        except RowRefused as refusal:
            # The history has the report already: the transaction is repeated, and inserts both or none.
            self._met.status_refuses = True
            raise TryAgain(f"vehicle_status refuses a report: {refusal}") from None

    def _reject(self, rejected: Iterable[tuple[Entry, Rejected]]) -> None:
        with self._connection.cursor() as cursor:
            rejects.add(cursor, rejected)
