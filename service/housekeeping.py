"""Moves rows of the "other" partitions into partitions of their own, and folds totals, beside the loading."""

import threading
from collections.abc import Callable
from contextlib import closing

from psycopg2.extensions import connection as Connection

from db.connection import Database
from db.ledger import fold_totals
from db.partitions import bring_home
from db.patience import cancel
from db.tables import TABLES, Tables
from processing.errors import DatabaseUnavailable, Misconfigured
from service.events import HousekeepingFailed, PartitionMade, Publish

#: The pause between two rounds. A round without work reads two tables that are nearly always empty.
ROUND_SECONDS = 180.0

#: The pause between two days: loads that waited for the lock go on meanwhile.
_PAUSE_SECONDS = 1.0

#: Rows moved under one lock, at most: a million took 9 s on two busy cores, and loads wait 60 s for it.
_MOST_ROWS = 2_000_000

_CANCELS = 20
_CANCEL_SECONDS = 0.1


class Housekeeping:
    """A thread that works while its context is entered, on its own connections; its errors stop nothing."""

    def __init__(
        self,
        ensure_running: Callable[[], Database],
        publish: Publish,
        round_seconds: float = ROUND_SECONDS,
        tables: Tables = TABLES,
    ) -> None:
        self._ensure_running = ensure_running
        self._publish = publish
        self._round_seconds = round_seconds
        self._tables = tables
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._connection: Connection | None = None
        self._published: set[str] = set()

    def __enter__(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OSError(f"the system has no thread for the program: {error}") from None

    def __exit__(self, *_: object) -> None:
        """Cancels what is under way, which rolls back; a thread that can't be woken ends with the process."""
        self._stop.set()
        for _attempt in range(_CANCELS):
            # Repeated, because between two statements there is nothing to cancel.
            if self._connection is not None:
                cancel(self._connection)
            self._thread.join(_CANCEL_SECONDS)
            if not self._thread.is_alive():
                return

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._round()
            except (DatabaseUnavailable, Misconfigured) as error:
                # Each reason once; the daemon's own connections report an outage anyway.
                reason = str(error)
                if reason not in self._published and not self._stop.is_set():
                    self._published.add(reason)
                    self._publish(HousekeepingFailed(reason))
            self._stop.wait(self._round_seconds)

    def _round(self) -> None:
        with closing(self._ensure_running().connect(autocommit=True)) as self._connection:
            for table in self._tables.values():
                with self._connection.cursor() as cursor:
                    while not self._stop.is_set() and (day := bring_home(cursor, table, _MOST_ROWS)):
                        self._publish(PartitionMade(table.name, str(day)))
                        self._stop.wait(_PAUSE_SECONDS)
            with self._connection.cursor() as cursor:
                fold_totals(cursor)
