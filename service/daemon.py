"""The daemon: one folder, one database; events and scans in, batches out to the workers, outcomes back."""

import os
import queue
import stat
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import watcher.scan
from config import Settings
from db.connection import Database
from monitor.event_log import log_outcome, log_suspects, log_waiting, warn_of_hidden_writers
from monitor.log import Log
from processing.batch import FileTask, Outcome
from processing.errors import (
    BatchLost,
    DatabaseUnavailable,
    Misconfigured,
    Setback,
    TransactionFailed,
    WorkerDied,
    WorkerKilled,
)
from service.backlog import Backlog
from service.build import start_pool
from service.discovery import FileDiscovery
from service.heartbeat import CHECK_SECONDS
from service.outage import Outage, TimedOut
from service.probe import Probe
from service.signals import StopSignal
from service.worker import Results
from sources.claims import recover_claims

#: How long a stop waits for what is in hand; what is not done by then rolls back.
STOP_SECONDS = 3.0

#: Waiting is normal for a moment; from so many tries on it is worth a line in the log.
_TRIES_UNTIL_LOGGED = 4


class Daemon:
    """Everything it does happens in one thread, which waits at its inbox."""

    def __init__(
        self,
        settings: Settings,
        ensure_running: Callable[[], Database],
        log: Log,
        stop: StopSignal,
        *,
        once: bool,
    ) -> None:
        self._folder = str(settings.folder)
        self._settings = settings
        self._ensure_running = ensure_running
        self._database = ensure_running()
        self._log = log
        self._stop = stop
        self._once = once
        self._inbox: queue.SimpleQueue[str | Results | Probe | None] = queue.SimpleQueue()
        self._discovery = FileDiscovery(self._folder, settings.observer, self._inbox.put, log)
        self._backlog = Backlog(settings.settle_seconds, settings.rescan_seconds, settings.quiet_seconds)
        self._pool = start_pool(settings, self._database)
        self._flights: dict[Results, tuple[list[FileTask], float]] = {}  # with the time of their departure
        self._probe: Probe | None = None
        self._outage: Outage | None = None
        self._next_scan = 0.0
        self._listed: list[str] | None = []  # by --once
        self._hides_writers = False
        self._totals: Counter[str] = Counter()

    def run(self) -> Counter[str]:
        """Until told to stop, or with once until all that was there is done.

        Raises Misconfigured, and with once GaveUp.
        """
        self._stop.wake = lambda: self._inbox.put(None)
        try:
            while not self._stop.event.is_set():
                self._scan_if_due()
                self._pool.check()
                self._dispatch()
                if self._once and self._is_done():
                    break
                self._wait()
        except (Misconfigured, TimedOut):
            self._stop.event.set()  # of what is in hand no one waits for the end
            raise
        finally:
            self._finish()
        return self._totals

    def _scan_if_due(self) -> None:
        if time.monotonic() < self._next_scan:
            return
        is_first, self._next_scan = not self._next_scan, time.monotonic() + self._settings.rescan_seconds
        if self._once and not is_first:
            return
        if not self._once:
            self._discovery.observe()
        names = self._discovery.scan()
        if names is not None:
            self._backlog.keep_only(names)
            self._backlog.on_scan(names)
        if self._once:
            self._listed = names

    def _dispatch(self) -> None:
        """A batch for each free worker; in an outage one at a time, to see whether it is over."""
        while self._may_dispatch():
            others_first = self._pool.size == 1 or self._outage is not None
            batch = self._backlog.batch(self._pool.size, self._size_of, others_first=others_first)
            if not batch:
                return
            try:
                flight = self._pool.load(batch)
            except BatchLost as error:
                self._backlog.requeue(batch)
                self._wait_for("a worker", error)
                return
            self._flights[flight] = batch, time.monotonic()
            if self._outage is not None:
                self._outage.probe = flight
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
        if self._probe is not None and self._probe.is_over():
            self._judge(self._probe)

    def _patience(self) -> float:
        due = [self._next_scan]
        if self._flights or self._probe:
            due.append(time.monotonic() + CHECK_SECONDS)
        if self._outage and not self._flights:
            due.append(self._outage.next_try)
        elif self._may_dispatch():
            due.append(self._backlog.next_due())
        return max(0.0, min(due) - time.monotonic())

    def _take(self, item: str | Results | Probe | None) -> None:
        if isinstance(item, str):
            self._backlog.on_event(item)
        elif isinstance(item, Probe):
            return  # it has woken us; unless it was late it is judged now
        elif item is None:
            self._next_scan = time.monotonic()
        else:
            self._collect(item)

    def _collect(self, flight: Results) -> None:
        batch, since = self._flights.pop(flight)
        try:
            results = self._pool.outcomes(flight)
        except TransactionFailed as error:
            self._ask_for(batch, time.monotonic() - since, error)
        except DatabaseUnavailable as error:
            if isinstance(error, Setback):
                self._backlog.set_back(batch, time.monotonic() - since)
            else:
                self._backlog.requeue(batch)
            self._wait_for("the database", error)
            self._reconnect_if_moved()
        except BatchLost as error:
            self._backlog.requeue(batch)
            self._wait_for("a worker", error)
        except Misconfigured:
            self._backlog.requeue(batch)
            raise
        except WorkerDied as error:
            self._backlog.record_crash(batch, str(error), is_killed=isinstance(error, WorkerKilled))
            if not self._stop.event.is_set():  # else it was told to, as we are
                self._log.error("worker died", files=len(batch), reason=str(error))
        else:
            self._end_outage(flight)
            if any(outcome.state == "loaded" for outcome in results):
                self._backlog.note_loaded()
            for outcome in results:
                self._settle(outcome)

    def _ask_for(self, batch: list[FileTask], seconds: float, error: TransactionFailed) -> None:
        """Whether the database answers somebody else decides what becomes of the batch, still in flight."""
        if self._stop.event.is_set():
            self._backlog.requeue(batch)
            return
        if self._probe is None:
            self._probe = Probe(self._database, self._inbox.put)
            self._probe.start()
        self._probe.failed.append((batch, seconds, error))

    def _judge(self, probe: Probe) -> None:
        """If it answers, it is not to blame."""
        self._probe = None
        for batch, seconds, error in probe.failed:
            if probe.complaint is None:
                pause = self._backlog.suspect(batch, str(error), seconds)
                log_suspects(self._log, [work.name for work in batch], str(error), pause)
            else:
                self._backlog.requeue(batch)
                self._wait_for("the database", error)
                self._reconnect_if_moved()

    def _wait_for(self, what: str, error: Exception) -> None:
        if self._stop.event.is_set():  # then nothing is missed any more
            return
        if self._outage is None or self._outage.what != what:
            self._outage = Outage(what, error, self._log)
        self._outage.postpone(error, once=self._once)

    def _reconnect_if_moved(self) -> None:
        """An embedded database that was started again may have had to take another port."""
        if self._flights or self._stop.event.is_set():
            return
        with suppress(DatabaseUnavailable):
            database = self._ensure_running()
            if database != self._database:
                self._database = database
                self._pool.stop(0)
                self._pool = start_pool(self._settings, database)

    def _end_outage(self, flight: Results) -> None:
        """If the batch was to find out whether it is over: the success of an older one says nothing."""
        if self._outage is not None and self._outage.probe is flight:
            self._outage.end()
            self._outage = None

    def _settle(self, outcome: Outcome) -> None:
        if outcome.hides_writers and not self._hides_writers:
            self._hides_writers = True
            warn_of_hidden_writers(self._log, outcome)
        self._backlog.settle(outcome)
        tries = self._backlog.tries(outcome.name)
        if outcome.state in ("loaded", "failed") or (outcome.state == "duplicate" and tries <= 1):
            self._totals[outcome.state] += 1
            self._totals["rows"] += outcome.counts.inserted
            self._totals["rejected"] += outcome.counts.rejected
            log_outcome(self._log, outcome)
        elif tries == _TRIES_UNTIL_LOGGED:  # such as a file that is loaded but can't be removed
            log_waiting(self._log, outcome)

    def _is_done(self) -> bool:
        longest = max(self._settings.settle_seconds, self._settings.quiet_seconds)
        return not self._backlog or self._backlog.only_stuck(longest + 1)

    def _finish(self) -> None:
        """Lets the workers end what they have in hand, and notes what became of it."""
        self._discovery.stop()
        self._pool.stop(STOP_SECONDS)
        for flight in [flight for flight in self._flights if flight.done()]:
            with suppress(Misconfigured, TimedOut):
                self._collect(flight)
        recover_claims(self._folder)
        self._totals["waiting"] = self._left() if self._once else len(self._backlog)

    def _left(self) -> int:
        """Of what was to be loaded now, whatever put it back; at least one if nobody knows."""
        with suppress(OSError):
            if self._listed is not None:
                return len(set(self._listed) & set(watcher.scan.waiting(self._folder)))
        return max(1, len(self._backlog))
