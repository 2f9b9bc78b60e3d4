"""What is put in order beside the loading: rows of the "other" partitions get a partition of their own."""

import threading
from collections.abc import Callable
from contextlib import closing, suppress

import psycopg2
from psycopg2.extensions import connection as Connection

from db.connection import Database
from db.partitions import bring_home
from db.tables import TABLE_OF
from monitor.log import Log
from processing.errors import DatabaseUnavailable, Misconfigured

#: Between two rounds. A round that finds nothing reads two tables that are nearly always empty.
ROUND_SECONDS = 180.0

#: Between two days, so that those go on who have waited meanwhile.
_PAUSE_SECONDS = 1.0

#: A million took 9 s on two busy cores; loads wait for a lock for 60 s.
_MOST_ROWS = 2_000_000

_CANCELS = 20
_CANCEL_SECONDS = 0.1


class Housekeeping:
    """A thread that works while it is entered, on connections of its own; no trouble of it stops anything."""

    def __init__(
        self, ensure_running: Callable[[], Database], log: Log, round_seconds: float = ROUND_SECONDS
    ) -> None:
        self._ensure_running = ensure_running
        self._log = log
        self._round_seconds = round_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._connection: Connection | None = None
        self._told: set[str] = set()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        """Soon: what is not done yet rolls back; a thread that can't be woken ends with the process."""
        self._stop.set()
        for _attempt in range(_CANCELS):
            # Between two statements there is nothing to cancel: hence again.
            with suppress(psycopg2.Error):
                if self._connection is not None:
                    self._connection.cancel()
            self._thread.join(_CANCEL_SECONDS)
            if not self._thread.is_alive():
                return

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._round()
            except (DatabaseUnavailable, Misconfigured) as error:
                self._tell(str(error))
            self._stop.wait(self._round_seconds)

    def _round(self) -> None:
        with closing(self._ensure_running().connect(autocommit=True)) as self._connection:
            for table in TABLE_OF.values():
                with self._connection.cursor() as cursor:
                    while not self._stop.is_set() and (day := bring_home(cursor, table, _MOST_ROWS)):
                        self._log.info("a day has its partition now", table=table.name, day=str(day))
                        self._stop.wait(_PAUSE_SECONDS)

    def _tell(self, reason: str) -> None:
        """Once: an outage is told by those who load."""
        if reason not in self._told and not self._stop.is_set():
            self._told.add(reason)
            self._log.warning("housekeeping failed", reason=reason)
