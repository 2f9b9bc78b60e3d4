"""The daemon: one folder, one database; events and scans in, batches out to the workers, outcomes back."""

import os
import queue
import stat
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from commands.backlog import Backlog
from commands.logs import Log
from commands.lookout import Lookout
from commands.outage import Outage
from commands.report import log_outcome, log_waiting
from commands.stop import Stop
from commands.workers import start_pool
from config import Settings
from db.connection import Database
from processing.errors import DatabaseUnavailable, Misconfigured
from processing.pool import BatchLost, Results, WorkerDied, outcomes
from processing.processor import Outcome, Work
from processing.settle import recover_claims

#: How long a stop waits for what is in hand; what is not done by then rolls back.
STOP_SECONDS = 3.0

#: Waiting is normal for a moment; from so many tries on it is worth a line in the log.
_TRIES_UNTIL_LOGGED = 4


class Daemon:
    """Everything it does happens in one thread, which waits at its inbox."""

    def __init__(self, settings: Settings, running: Callable[[], Database], log: Log, stop: Stop) -> None:
        self._folder = str(settings.folder)
        self._settings = settings
        self._running = running
        self._database = running()
        self._log = log
        self._stop = stop
        self._inbox: queue.SimpleQueue[str | Results | None] = queue.SimpleQueue()
        self._lookout = Lookout(self._folder, settings.observer, self._inbox.put, log)
        self._backlog = Backlog(settings.settle_seconds, settings.rescan_seconds)
        self._pool = start_pool(settings, self._database)
        self._flights: dict[Results, list[Work]] = {}
        self._outage: Outage | None = None
        self._next_scan = 0.0
        self._totals: Counter[str] = Counter()

    def run(self, *, once: bool) -> Counter[str]:
        """Until told to stop, or with once until all that was there is done; raises Misconfigured."""
        self._stop.wake = lambda: self._inbox.put(None)
        try:
            while not self._stop.event.is_set():
                self._scan_if_due(once)
                self._dispatch()
                if once and self._is_done():
                    break
                self._wait()
        finally:
            self._finish()
        return self._totals

    def _scan_if_due(self, once: bool) -> None:
        if time.monotonic() < self._next_scan:
            return
        is_first, self._next_scan = not self._next_scan, time.monotonic() + self._settings.rescan_seconds
        if once and not is_first:
            return
        if not once:
            self._lookout.observe()
        names = self._lookout.scan()
        if names is not None:
            self._backlog.keep_only(names)
            self._backlog.see(names)

    def _dispatch(self) -> None:
        """A batch for each free worker; while the database is away, one at a time to ask for it."""
        while self._may_dispatch():
            batch = self._backlog.batch(self._pool.size, self._size_of)
            if not batch:
                return
            flight = self._pool.load(batch)
            self._flights[flight] = batch
            flight.add_done_callback(self._inbox.put)

    def _may_dispatch(self) -> bool:
        if self._outage is None:
            return len(self._flights) < self._pool.size
        return not self._flights and time.monotonic() >= self._outage.next_try

    def _size_of(self, name: str) -> int | None:
        """None if it is gone or a folder: polling takes one for a file that moved if it got its inode."""
        try:
            status = os.lstat(os.path.join(self._folder, name))
        except FileNotFoundError:
            return None
        except OSError:
            return 0  # opening it will tell the reason
        return None if stat.S_ISDIR(status.st_mode) else status.st_size

    def _wait(self) -> None:
        """Until something happens or is due."""
        with suppress(queue.Empty):
            self._take(self._inbox.get(timeout=self._patience()))
            while True:
                self._take(self._inbox.get_nowait())

    def _patience(self) -> float:
        due = [self._next_scan]
        if self._outage and not self._flights:
            due.append(self._outage.next_try)
        elif self._may_dispatch():
            due.append(self._backlog.next_due())
        return max(0.0, min(due) - time.monotonic())

    def _take(self, item: str | Results | None) -> None:
        if isinstance(item, str):
            self._backlog.hear(item)
        elif item is not None:
            self._collect(item)

    def _collect(self, flight: Results) -> None:
        batch = self._flights.pop(flight)
        try:
            results = outcomes(flight)
        except DatabaseUnavailable as error:
            self._backlog.give_back(batch)
            self._database_is_away(error)
        except BatchLost:
            self._backlog.give_back(batch)
        except Misconfigured:
            self._backlog.give_back(batch)
            raise
        except WorkerDied as error:
            self._backlog.blame(batch)
            if not self._stop.event.is_set():  # else it was told to, as we are
                self._log.error("worker died", files=len(batch), reason=str(error))
        else:
            self._database_is_back()
            for outcome in results:
                self._settle(outcome)

    def _database_is_away(self, error: DatabaseUnavailable) -> None:
        begins = self._outage is None
        self._outage = self._outage or Outage()
        if self._outage.is_new(str(error)):
            what = "waiting for the database" if begins else "the database is still away"
            self._log.warning(what, reason=str(error))
        self._outage.postpone()
        if not self._flights and not self._stop.event.is_set():
            with suppress(DatabaseUnavailable):
                self._reach(self._running())

    def _reach(self, database: Database) -> None:
        """An embedded database that was started again may have had to take another port."""
        if database != self._database:
            self._database = database
            self._pool.stop(0)
            self._pool = start_pool(self._settings, database)

    def _database_is_back(self) -> None:
        if self._outage is not None:
            self._log.info("the database is back", seconds=round(self._outage.seconds(), 1))
        self._outage = None

    def _settle(self, outcome: Outcome) -> None:
        self._backlog.settle(outcome)
        self._totals[outcome.state] += 1
        if outcome.state in ("loaded", "duplicate", "failed"):
            self._totals["rows"] += outcome.counts.inserted
            self._totals["rejected"] += outcome.counts.rejected
            log_outcome(self._log, outcome)
        elif outcome.state == "waiting" and self._backlog.tries(outcome.name) == _TRIES_UNTIL_LOGGED:
            log_waiting(self._log, outcome)

    def _is_done(self) -> bool:
        return not self._backlog or self._backlog.only_stuck(self._settings.settle_seconds + 1)

    def _finish(self) -> None:
        """Lets the workers end what they have in hand, and notes what became of it."""
        self._lookout.stop()
        self._pool.stop(STOP_SECONDS)
        for flight in [flight for flight in self._flights if flight.done()]:
            with suppress(Misconfigured):
                self._collect(flight)
        self._totals["waiting"] = len(self._backlog)
        with suppress(OSError):
            recover_claims(self._folder)
