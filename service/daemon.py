"""The daemon: one folder, one database; events and scans in, batches out to the workers, outcomes back."""

import queue
import time
from collections import Counter
from contextlib import suppress

from config import Settings
from processing.batch import FileTask, Outcome
from processing.errors import (
    BatchLost,
    DatabaseUnavailable,
    Misconfigured,
    Setback,
    SourceUnavailable,
    TransactionFailed,
    WorkerDied,
    WorkerKilled,
)
from service import events
from service.backlog import Backlog
from service.destination import Destination
from service.discovery import Discovery
from service.events import Publish, Resource
from service.heartbeat import CHECK_SECONDS
from service.inbox import BatchDone, FileArrived, Inbox, PageListed, ProbeAnswered, ScanWanted
from service.outage import Outage, TimedOut
from service.probe import Probe
from service.progress import PROGRESS_SECONDS, ProgressReport
from service.signals import StopSignal
from service.waiting import WaitingPolicy
from service.worker import Results

#: How long a stop waits for batches in flight; the others roll back.
STOP_SECONDS = 3.0

#: A file that waits is normal for a moment; after this many tries it is published.
_TRIES_UNTIL_PUBLISHED = 4

_TURNED = events.LoopTurned()

#: The main loop turns at least so often, also while nothing happens: else nobody could see that it is alive.
_LONGEST_WAIT = 30.0

#: The pause of a listing whose names would find no room.
_NO_ROOM_SECONDS = 0.5

#: Objects of a bucket in a batch: each takes two requests, and all wait for the last.
_BUCKET_BATCH_FILES = 64

#: The longest pause of an object that has to wait, and how many of them are tried again in a second.
_BUCKET_LONGEST_DELAY = 60.0
_BUCKET_RETRIES_A_SECOND = 20.0

_ENDS = {"loaded": events.FileLoaded, "duplicate": events.FileDuplicate, "failed": events.FileFailed}


class Daemon:
    """Loads files until it is asked to stop, in one thread that waits at its inbox."""

    def __init__(
        self,
        settings: Settings,
        destination: Destination,
        discovery: Discovery,
        inbox: Inbox,
        publish: Publish,
        stop: StopSignal,
        *,
        once: bool,
    ) -> None:
        """Starts nothing. The inbox receives what the discovery notices."""
        self._settings = settings
        self._destination = destination
        self._publish = publish
        self._stop = stop
        self._once = once
        self._discovery = discovery
        self.inbox = inbox
        self._backlog = _backlog(settings)
        self._pool = destination.make_pool()
        self._flights: dict[Results, tuple[list[FileTask], float]] = {}  # with the time of their departure
        self._probe: Probe | None = None
        self._outage: Outage | None = None
        self._next_scan: float | None = None  # None: before the first
        self._is_listed = False  # all that was there
        self._hides_writers = False
        self._alive = 0  # workers, as published last
        self._totals: Counter[str] = Counter()
        self._progress = ProgressReport(publish, discovery.size_of)

    def run(self) -> Counter[str]:
        """Loads files until asked to stop, or with once until everything that was there is done.

        Raises Misconfigured, and with once TimedOut.
        """
        self._stop.wake = lambda: self.inbox.put(ScanWanted())
        try:
            self._pool.start()
            while not self._stop.event.is_set():
                self._publish(_TURNED)
                if self._next_scan is None or time.monotonic() >= self._next_scan:
                    self._scan()
                self._pool.check()
                self._dispatch()
                flights = [(flight, batch) for flight, (batch, _) in self._flights.items()]
                self._progress.update(self._backlog, self._pool, flights)
                if self._once and self._is_done():
                    break
                self._wait()
        except (Misconfigured, TimedOut):
            self._stop.event.set()  # do not wait for batches in flight
            raise
        finally:
            self._finish()
        return self._totals

    def _scan(self) -> None:
        self._next_scan = time.monotonic() + self._settings.rescan_seconds
        if (alive := self._pool.alive()) != self._alive:
            self._alive = alive
            self._publish(events.WorkersCounted(alive))
        if self._once and self._is_listed:
            return
        if not self._backlog.has_room() and self._settings.bucket is not None:
            self._next_scan = time.monotonic() + _NO_ROOM_SECONDS
            return
        if not self._once:
            self._discovery.observe()
        names = self._discovery.scan()
        if names is not None:
            self._publish(events.FolderListed(len(names)))
            self._backlog.keep_only(names)
            self._backlog.on_scan(names)
        self._is_listed = self._is_listed or self._settings.bucket is None

    def _take_page(self, page: PageListed) -> None:
        """Takes a part of a bucket's listing, and asks for the next part at once if there is one."""
        if isinstance(page.error, Misconfigured):
            raise page.error
        if page.error is not None:
            is_bucket = isinstance(page.error, SourceUnavailable)
            self._enter_outage(Resource.BUCKET if is_bucket else Resource.DATABASE, page.error)
            self._next_scan = self._outage.next_try if self._outage else None
            return
        if self._outage is not None and self._outage.resource is not Resource.WORKERS and not self._backlog:
            self._end_outage()  # else the next object has to show that it is over
        if page.has_moved:
            self._backlog.keep_where(self._discovery.is_ours)
        self._backlog.on_page(page.found, page.began)
        self._is_listed = self._is_listed or page.is_last
        if not page.is_last:
            self._next_scan = time.monotonic()

    def _dispatch(self) -> None:
        """Sends a batch to each free worker; during an outage one at a time, as a probe."""
        while self._may_dispatch():
            others_first = self._pool.size == 1 or self._outage is not None
            batch = self._backlog.batch(self._pool.size, self._discovery.size_of, others_first=others_first)
            if not batch:
                return
            try:
                flight = self._pool.load(batch)
            except BatchLost as error:
                self._backlog.requeue(batch)
                self._enter_outage(Resource.WORKERS, error)
                return
            self._flights[flight] = batch, time.monotonic()
            if self._outage is not None:
                self._outage.probe = flight
            flight.add_done_callback(lambda flight: self.inbox.put(BatchDone(flight)))

    def _may_dispatch(self) -> bool:
        if self._outage is None:
            return len(self._flights) < self._pool.size
        return not self._flights and time.monotonic() >= self._outage.next_try

    def _wait(self) -> None:
        """Waits until something happens or is due, and handles all messages that are there by then."""
        now = time.monotonic()
        due = [now if self._next_scan is None else self._next_scan, now + _LONGEST_WAIT]
        if self._flights or self._probe:
            due.append(now + min(CHECK_SECONDS, PROGRESS_SECONDS))
        if self._outage and not self._flights:
            due.append(self._outage.next_try)
        elif self._may_dispatch():
            due.append(self._backlog.next_due())
        with suppress(queue.Empty):
            message = self.inbox.get(timeout=max(0.0, min(due) - now))
            while True:
                match message:
                    case FileArrived(name):
                        self._backlog.on_event(name)
                    case ScanWanted():
                        self._next_scan = time.monotonic()
                    case PageListed():
                        self._take_page(message)
                    case BatchDone(flight):
                        self._collect(flight)
                message = self.inbox.get_nowait()
        if self._probe is not None and self._probe.is_over():
            self._judge(self._probe)

    def _collect(self, flight: Results) -> None:
        """Takes the outcomes of a batch, or the error with which it came back."""
        batch, since = self._flights.pop(flight)
        try:
            outcomes = self._pool.outcomes(flight)
        # TransactionFailed is a DatabaseUnavailable that may be the fault of the files: hence first.
        except TransactionFailed as error:
            self._ask_for(batch, time.monotonic() - since, error)
        except DatabaseUnavailable as error:
            if isinstance(error, Setback):
                self._backlog.record_setback(batch, time.monotonic() - since)
            else:
                self._backlog.requeue(batch)
            self._enter_outage(self._destination.resource, error)
            self._reconnect_if_moved()
        except SourceUnavailable as error:
            self._backlog.requeue(batch)
            self._enter_outage(Resource.BUCKET, error)
        except BatchLost as error:
            self._backlog.requeue(batch)
            self._enter_outage(Resource.WORKERS, error)
        except Misconfigured:
            self._backlog.requeue(batch)
            raise
        except WorkerDied as error:
            next_try = self._backlog.record_crash(
                batch, str(error), is_killed=isinstance(error, WorkerKilled)
            )
            if not self._stop.event.is_set():  # else the worker was asked to end, as the daemon is
                self._publish(events.WorkerDied([task.name for task in batch], str(error), next_try))
        else:
            self._record(flight, outcomes)

    def _record(self, flight: Results, outcomes: list[Outcome]) -> None:
        # Only the probe ends an outage: the success of a batch sent before it proves nothing.
        if self._outage is not None and self._outage.probe is flight:
            self._end_outage()
        if any(outcome.state == "loaded" for outcome in outcomes):
            self._backlog.note_loaded()
        for outcome in outcomes:
            if outcome.hides_writers and not self._hides_writers:
                self._hides_writers = True
                self._publish(events.WritersHidden(outcome.name))
            tries = self._backlog.record_outcome(outcome)
            if outcome.state in ("loaded", "failed") or (outcome.state == "duplicate" and tries <= 1):
                self._totals[outcome.state] += 1
                self._totals["rows"] += outcome.counts.inserted
                self._totals["rejected"] += outcome.counts.rejected
                self._publish(_ENDS[outcome.state](outcome))
            elif tries == _TRIES_UNTIL_PUBLISHED:  # also a file that is loaded but can't be removed
                self._publish(events.FileWaiting(outcome))

    def _ask_for(self, batch: list[FileTask], seconds: float, error: TransactionFailed) -> None:
        """Asks the database in another way; its answer decides about the batch, still in flight."""
        if self._stop.event.is_set():
            self._backlog.requeue(batch)
            return
        if self._probe is None:
            probe = Probe(self._destination.ask, lambda: self.inbox.put(ProbeAnswered()))
            try:
                probe.start()
            except RuntimeError as lack:
                self._backlog.requeue(batch)
                self._enter_outage(Resource.WORKERS, lack)
                return
            self._probe = probe
        self._probe.failed.append((batch, seconds, error))

    def _judge(self, probe: Probe) -> None:
        """Suspects the files of the batches that failed if the database answered, else enters an outage."""
        self._probe = None
        for batch, seconds, error in probe.failed:
            if probe.complaint is None:
                next_try = self._backlog.suspect(batch, str(error), seconds)
                self._publish(events.FilesSuspected([task.name for task in batch], str(error), next_try))
            else:
                self._backlog.requeue(batch)
                self._enter_outage(self._destination.resource, error)
                self._reconnect_if_moved()

    def _enter_outage(self, resource: Resource, error: Exception) -> None:
        """Begins an outage, or prolongs it; raises TimedOut if --once has waited for long enough."""
        if self._stop.event.is_set():  # nothing will be loaded any more
            return
        if self._outage is None or self._outage.resource is not resource:
            self._outage = Outage(resource, self._publish)
        self._outage.postpone(error, once=self._once)

    def _end_outage(self) -> None:
        if self._outage is not None:
            self._outage.end()
            self._outage = None

    def _reconnect_if_moved(self) -> None:
        """Replaces the pool if an embedded database that was started again had to take another port."""
        if self._flights or self._stop.event.is_set():
            return
        with suppress(DatabaseUnavailable):
            if self._destination.has_moved():
                self._pool.stop(0)
                self._pool = self._destination.make_pool()
                self._pool.start()

    def _is_done(self) -> bool:
        if not self._is_listed:
            return False
        is_folder = self._settings.bucket is None
        longest = max(self._settings.settle_seconds, self._settings.quiet_seconds) if is_folder else 0.0
        return not self._backlog or self._backlog.only_stuck(longest)

    def _finish(self) -> None:
        """Lets the workers finish their batches, and counts what is left."""
        self._discovery.stop()
        self._pool.stop(STOP_SECONDS)
        for flight in [flight for flight in self._flights if flight.done()]:
            with suppress(Misconfigured, TimedOut):
                self._collect(flight)
        self._discovery.put_back()
        waiting = len(self._backlog)
        self._totals["waiting"] = self._discovery.left(waiting) if self._once else waiting


def _backlog(settings: Settings) -> Backlog:
    """Returns a backlog whose batches and pauses suit the source: a request costs more than a system call."""
    if settings.bucket is None:
        policy = WaitingPolicy(settings.settle_seconds, settings.rescan_seconds, settings.quiet_seconds)
        return Backlog(policy)
    longest = max(settings.rescan_seconds, _BUCKET_LONGEST_DELAY)
    policy = WaitingPolicy(0.0, longest, 0.0, retries_a_second=_BUCKET_RETRIES_A_SECOND)
    return Backlog(policy, batch_files=_BUCKET_BATCH_FILES)
