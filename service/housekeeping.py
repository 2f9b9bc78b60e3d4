"""Keeps the tables in order beside the loading: drops old days, empties "other", folds totals."""

import threading
from collections.abc import Callable
from contextlib import closing
from datetime import date

from psycopg2.extensions import connection as Connection

from db import retention
from db.connection import Database
from db.ledger import fold_totals
from db.patience import cancel
from db.tables import TABLES, Tables
from processing.errors import DatabaseUnavailable, Misconfigured
from service.events import HousekeepingFailed, Publish
from service.upkeep import Upkeep

#: The pause between two rounds. A round without work reads two tables that are nearly always empty.
ROUND_SECONDS = 180.0

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
        retention_days: int | None = None,
    ) -> None:
        self._ensure_running = ensure_running
        self._publish = publish
        self._round_seconds = round_seconds
        self._tables = tables
        self._retention_days = retention_days
        self._dropped_before: date | None = None
        self._others: dict[str, int] = {}
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
                with closing(self._ensure_running().connect(autocommit=True)) as self._connection:
                    upkeep = Upkeep(self._connection, self._publish, self._stop.wait, self._tables)
                    self._try(self._bring_home, upkeep)
                    self._try(self._drop_old, upkeep)
                    self._try(self._fold_totals, upkeep)
            except (DatabaseUnavailable, Misconfigured) as error:
                self._report(error)
            self._stop.wait(self._round_seconds)

    def _try(self, step: Callable[[Upkeep], None], upkeep: Upkeep) -> None:
        """Takes a step; one that the database refuses, for want of a right, keeps no other from it."""
        try:
            step(upkeep)
        except Misconfigured as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        # Each reason once; the daemon's own connections report an outage anyway.
        reason = str(error)
        if reason not in self._published and not self._stop.is_set():
            self._published.add(reason)
            self._publish(HousekeepingFailed(reason))

    def _bring_home(self, upkeep: Upkeep) -> None:
        upkeep.bring_home()
        found = upkeep.find_others()
        for others in found:
            if others.rows > self._others.get(others.table, 0):
                self._publish(others)
        self._others = {others.table: others.rows for others in found}

    def _drop_old(self, upkeep: Upkeep) -> None:
        """Drops old days once a day; in each round, if a lock was not free."""
        if self._retention_days is None:
            return
        assert self._connection is not None
        with self._connection.cursor() as cursor:
            first_day = retention.first_day(cursor, self._retention_days)
        if first_day != self._dropped_before and upkeep.drop_old(first_day):
            self._dropped_before = first_day

    def _fold_totals(self, _: Upkeep) -> None:
        assert self._connection is not None
        with self._connection.cursor() as cursor:
            fold_totals(cursor)
