"""The daemon: watches the folder and has its files loaded, until it is told to stop."""

import os
import queue
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from psycopg2.extensions import parse_dsn

import watcher.scan
from commands.backlog import Backlog
from commands.logs import Log
from config import Settings
from db import schema
from db.connection import Database
from db.sink import PostgresSink
from processing.errors import DatabaseUnavailable, Misconfigured
from processing.names import printable
from processing.pool import Pool, Results, WorkerDied, outcomes
from processing.processor import Outcome, Processor, Work
from processing.settle import OnLoaded, Settler, recover_claims
from watcher.observer import FolderObserver

#: How long a stop waits for what is in hand; what is not done by then rolls back.
STOP_SECONDS = 3.0

#: What of a connection string may be shown.
_SHOWN = ("host", "port", "dbname", "user", "service")

#: Waiting is normal for a moment; from so many tries on it is worth a line in the log.
_TRIES_UNTIL_LOGGED = 4

Inbox = queue.SimpleQueue[str | Results | None]


@dataclass(frozen=True)
class StartWorker:
    """Makes the processor of a worker process, there."""

    folder: str
    failed: str
    archive: str
    on_loaded: OnLoaded
    max_bytes: int
    database: Database

    def __call__(self) -> Processor:
        settler = Settler(self.folder, self.failed, self.archive, self.on_loaded)
        return Processor(self.folder, PostgresSink(self.database), settler, self.max_bytes)


class BackOff:
    """Pauses between tries: capped, and jittered so that daemons do not come back all at once."""

    _FIRST, _LONGEST = 0.25, 5.0

    def __init__(self) -> None:
        self._pause = self._FIRST

    def next(self) -> float:
        pause, self._pause = self._pause, min(self._pause * 2, self._LONGEST)
        return pause * random.uniform(0.75, 1.0)


@dataclass
class Outage:
    """The database does not answer: since when, and when it is asked again."""

    since: float = field(default_factory=time.monotonic)
    back_off: BackOff = field(default_factory=BackOff)
    next_try: float = 0.0

    def postpone(self) -> None:
        self.next_try = time.monotonic() + self.back_off.next()


class Daemon:
    """One folder, one database: events and scans in, batches out to the workers, outcomes back."""

    def __init__(self, settings: Settings, running: Callable[[], Database], log: Log, stop: "Stop") -> None:
        self._folder = str(settings.folder)
        self._settings = settings
        self._running = running
        self._database = running()
        self._log = log
        self._stop = stop
        self._inbox = stop.inbox
        self._backlog = Backlog(settings.settle_seconds, settings.rescan_seconds)
        self._observer = FolderObserver(self._folder, settings.observer, self._inbox.put)
        self._pool = Pool(settings.workers, _start_worker(settings, self._database))
        self._flights: dict[Results, list[Work]] = {}
        self._outage: Outage | None = None
        self._next_scan = 0.0
        self._trouble = ""
        self.totals: Counter[str] = Counter()

    def run(self, *, once: bool) -> None:
        """Until told to stop, or with once until all that was there is done; raises Misconfigured."""
        self._pool.warm_up()
        try:
            while not self._stop.event.is_set():
                self._scan_if_due(once)
                self._dispatch()
                if once and self._is_done():
                    break
                self._wait()
        finally:
            self._observer.stop()
            self._finish()

    def _scan_if_due(self, once: bool) -> None:
        if time.monotonic() < self._next_scan:
            return
        is_first, self._next_scan = not self._next_scan, time.monotonic() + self._settings.rescan_seconds
        if once and not is_first:
            return
        try:
            if not once and not self._observer.is_sound():
                # Armed before the scan: between the two nothing is missed.
                self._observer.stop()
                self._observer.start()
        except OSError as error:
            self._report_trouble("not observing, only scanning", error)
        try:
            for name in recover_claims(self._folder):
                self._log.warning("recovered", file=printable(name), reason="a worker died with it in hand")
            names = watcher.scan.waiting(self._folder)
        except OSError as error:
            self._report_trouble("cannot read the watch folder", error)
            return
        self._backlog.keep_only(names)
        self._backlog.see(names)

    def _report_trouble(self, what: str, error: OSError) -> None:
        """Once for each kind of trouble, not at every scan."""
        trouble = f"{what}: {os.strerror(error.errno or 0)}"
        if trouble != self._trouble:
            self._log.error(what, folder=printable(self._folder), reason=os.strerror(error.errno or 0))
        self._trouble = trouble

    def _dispatch(self) -> None:
        """A batch for each free worker; while the database is away, one file at a time to ask for it."""
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
        try:
            return os.stat(os.path.join(self._folder, name), follow_symlinks=False).st_size
        except FileNotFoundError:
            return None
        except OSError:
            return 0  # opening it will tell the reason

    def _wait(self) -> None:
        """Until something happens or is due."""
        with suppress(queue.Empty):
            self._take(self._inbox.get(timeout=self._patience()))
            while True:
                self._take(self._inbox.get_nowait())

    def _patience(self) -> float:
        times = [self._next_scan, self._backlog.next_due()]
        if self._outage and not self._flights:
            times = [self._next_scan, self._outage.next_try]
        return max(0.0, min(due for due in times if due is not None) - time.monotonic())

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
        except Misconfigured:
            self._backlog.give_back(batch)
            raise
        except WorkerDied as error:
            self._backlog.blame(batch)
            self._log.error("worker died", files=len(batch), reason=str(error))
        else:
            self._database_is_back()
            for outcome in results:
                self._settle(outcome)

    def _database_is_away(self, error: DatabaseUnavailable) -> None:
        if self._outage is None:
            self._outage = Outage()
            self._log.warning("waiting for the database", reason=str(error))
        self._outage.postpone()
        with suppress(DatabaseUnavailable):
            self._reach(self._running())

    def _reach(self, database: Database) -> None:
        """An embedded database that was started again may have had to take another port."""
        if database != self._database:
            self._database = database
            self._pool.stop(0)
            self._pool = Pool(self._settings.workers, _start_worker(self._settings, database))

    def _database_is_back(self) -> None:
        if self._outage is not None:
            self._log.info("the database is back", seconds=round(time.monotonic() - self._outage.since, 1))
        self._outage = None

    def _settle(self, outcome: Outcome) -> None:
        self._backlog.settle(outcome)
        self.totals[outcome.state] += 1
        if outcome.state in ("loaded", "duplicate", "failed"):
            self.totals["rows"] += outcome.counts.inserted
            self.totals["rejected"] += outcome.counts.rejected
            _log_outcome(self._log, outcome)
        elif outcome.state == "waiting" and self._backlog.tries(outcome.name) == _TRIES_UNTIL_LOGGED:
            self._log.info("waiting", file=printable(outcome.name), reason=outcome.reason)

    def _is_done(self) -> bool:
        return not self._backlog or self._backlog.only_stuck(self._settings.settle_seconds + 1)

    def _finish(self) -> None:
        """Lets the workers end what they have in hand, and notes what became of it."""
        self._pool.stop(STOP_SECONDS)
        for flight in [flight for flight in self._flights if flight.done()]:
            with suppress(Misconfigured):
                self._collect(flight)
        self.totals["waiting"] = len(self._backlog)
        with suppress(OSError):
            recover_claims(self._folder)


class Stop:
    """Ctrl+C or SIGTERM: the first asks for an end, the second makes one."""

    def __init__(self) -> None:
        self.inbox: Inbox = queue.SimpleQueue()
        self.event = threading.Event()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        signals = (signal.SIGINT, signal.SIGTERM)
        old = [signal.signal(number, self._ask) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, old, strict=True):
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.event.is_set():
            os._exit(128 + number)  # whatever is open rolls back, its file stays
        self.event.set()
        self.inbox.put(None)


def prepare_folders(settings: Settings) -> None:
    """Makes the folders; raises Misconfigured if files could not be moved between them."""
    folders = [folder for folder in (settings.folder, settings.failed, settings.archive) if folder]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(f"can't make the folder {folder}: {error.strerror}") from None
        if not os.access(folder, os.W_OK | os.X_OK | os.R_OK):
            raise Misconfigured(f"can't read and write the folder {folder}")
        if folder.stat().st_dev != settings.folder.stat().st_dev:
            raise Misconfigured(f"{folder} has to be on the same file system as {settings.folder}")


def prepare_database(running: Callable[[], Database], log: Log, stop: Stop) -> bool:
    """Applies the schema, as soon as the database answers; false if told to stop before that."""
    outage: Outage | None = None
    while not stop.event.is_set():
        try:
            _apply_schema(running())
            return True
        except DatabaseUnavailable as error:
            if outage is None:
                outage = Outage()
                log.warning("waiting for the database", reason=str(error))
            stop.event.wait(outage.back_off.next())
    return False


def announce(log: Log, settings: Settings) -> None:
    """What is watched, where the database is, how to query it."""
    outside = settings.outside_database
    log.info("watching", folder=str(settings.folder), observer=settings.observer, workers=settings.workers)
    if outside is None:
        log.info("database", embedded_in=str(settings.data_folder.resolve()))
    else:
        shown = {name: value for name, value in parse_dsn(outside).items() if name in _SHOWN}
        log.info("database", **shown)
    log.info("query it", with_command="python main.py sql 'select * from vehicle_status'")


def say_goodbye(log: Log, totals: Counter[str]) -> None:
    """What was done."""
    counted = ("loaded", "duplicate", "failed", "waiting", "rows", "rejected")
    log.info("stopped", **{name: totals[name] for name in counted})


def _apply_schema(database: Database) -> None:
    connection = database.connect()
    try:
        schema.apply(connection)
    finally:
        connection.close()


def _start_worker(settings: Settings, database: Database) -> StartWorker:
    return StartWorker(
        str(settings.folder),
        str(settings.failed),
        str(settings.archive or ""),
        settings.on_loaded,
        settings.max_file_bytes,
        database,
    )


def _log_outcome(log: Log, outcome: Outcome) -> None:
    """One line for a file that has come to its end."""
    pairs: dict[str, object] = {"file": printable(outcome.name)}
    if outcome.kind:
        counts = outcome.counts
        pairs |= {"kind": outcome.kind, "rows": counts.read, "inserted": counts.inserted}
        pairs |= {"duplicate": counts.duplicate, "rejected": counts.rejected}
    pairs["seconds"] = round(outcome.seconds, 4)
    if outcome.target:
        pairs["moved_to"] = printable(os.path.relpath(outcome.target))
    if outcome.reason:
        pairs["reason"] = outcome.reason
    write = log.info if outcome.state != "failed" and not outcome.reason else log.warning
    write(outcome.state, **pairs)
