"""The basis of every scenario: a database, a daemon as a process, producers, and their observers."""

import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import psutil

from db import schema
from db.connection import Database
from tests.chaos.background import beside
from tests.chaos.naive import TABLES
from tests.chaos.oracle import Reader, judge, leaks, marks_below
from tests.chaos.producers import LARGEST, Journal, Producers
from tests.support import ROOT, Daemon, Server, is_worker, query, until

#: Connection options that let a proxy read the messages.
_PLAIN = "sslmode=disable&gssencmode=disable"

#: Larger files would only show that the naive program is slow.
_NAIVE_ROWS = 60


class NaiveDaemon(Daemon):
    """The naive program in place of the daemon."""

    program = ROOT / "tests" / "chaos" / "naive.py"


@dataclass(frozen=True)
class Figure:
    """A measured value and its upper limit."""

    name: str
    value: float
    limit: float
    unit: str = "s"

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3g} {self.unit}"


@dataclass
class Finding:
    """The result of a scenario: the oracle's counts, figures, and anything else that is wrong, in words."""

    counts: Counter[str] = field(default_factory=Counter)
    figures: list[Figure] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@dataclass
class Trial:
    """One run of a scenario: its place, its seed, its volume and its time limit.

    `share` is the part of a full run; after `seconds` the scenario is given up.
    """

    server: Server
    folder: Path
    seed: int
    volume: int
    share: float
    seconds: float
    program: type[Daemon] = Daemon
    done: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._deadline = time.monotonic() + self.seconds

    @property
    def is_ours(self) -> bool:
        return not issubclass(self.program, NaiveDaemon)

    def take(self, count: int) -> None:
        """Sets the volume to this trial's share of `count`."""
        self.volume = max(1, math.ceil(count * min(self.share, 1)))

    def rounds(self, step: int = 1) -> Iterator[int]:
        """Yields the number of each round until the volume is reached or the time is up."""
        while self.done < self.volume and time.monotonic() < self._deadline:
            yield self.done
            self.done += step

    @contextmanager
    def rig(self, port: int | None = None, **settings: object) -> Iterator["Rig"]:
        """Yields a rig with its own database and folder; its daemon finds the server at `port`, if given."""
        with self.server.database() as database, ExitStack() as stack:
            prepare(database, self.is_ours)
            rig = Rig(self.program(self.folder / "drop", database.url, **settings), self)
            if port is not None:
                rig.daemon.url = f"{database.url.replace(str(self.server.port), str(port))}?{_PLAIN}"
            stack.callback(rig.end)
            yield rig


def prepare(database: Database, is_ours: bool) -> None:
    """Makes the tables, ours or those of the naive program."""
    if is_ours:
        connection = database.connect()
        schema.apply(connection)
        connection.close()
    else:
        query(database.url, TABLES)


class Rig:
    """A daemon under test, with its journal and its observers."""

    def __init__(self, daemon: Daemon, trial: Trial) -> None:
        self.daemon = daemon
        self.journal = Journal()
        self.url = str(daemon.url)
        self.reader = Reader(self.url, self.journal)
        self.meter = Meter(daemon)
        self.rng = trial.rng
        self._trial = trial
        daemon.incoming.mkdir(parents=True)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Runs the daemon while a reader looks for torn files and the memory is measured."""
        self.daemon.start()
        with beside(self.reader.watch), beside(self.meter.measure):
            yield

    @contextmanager
    def loaded(self, producers: int = 4) -> Iterator[Producers]:
        """Runs the daemon watched and under load; drains the backlog at the end."""
        largest = LARGEST if self._trial.is_ours else _NAIVE_ROWS
        work = Producers(self.daemon.incoming, self.journal, self._trial.seed, producers, largest)
        with self.watched():
            with work.at_work():
                yield work
            self.revive()
            self.drain()

    def drop(self, rows: int = 0) -> Path:
        """Drops one more file of the runner."""
        file = self.journal.draw(self.rng, rows)
        self.journal.add(file)
        return self.daemon.drop(file.name, file.content())

    def seconds_to_load(self, most: float) -> float:
        """Drops a small file; returns the seconds until it is gone, at most `most`."""
        started = time.monotonic()
        path = self.drop(12)
        with suppress(AssertionError):  # the figure and the oracle show it
            until(lambda: not path.exists(), most)
        return time.monotonic() - started

    def revive(self) -> None:
        """Starts the daemon if it has ended."""
        if self.daemon.process is None or self.daemon.process.poll() is not None:
            self.daemon.start(wait=False)

    def drain(self, seconds: float = 900) -> None:
        """Waits until the backlog is empty; the oracle counts what is left.

        The limit is long: on a slow machine few large files are loaded between two kills, and they pile up.
        """
        with suppress(AssertionError):
            self.daemon.until_empty(seconds)

    def until_commit(self, since: str, seconds: float = 30) -> None:
        """Waits until a file is loaded after `since`, a moment of the server's clock."""
        statement = "SELECT 1 FROM mobileye_data.ingested_files WHERE finished_at > %s LIMIT 1"
        if self._trial.is_ours:
            until(lambda: query(self.url, statement, (since,)), seconds, "a file is loaded")
        else:
            size = "SELECT pg_relation_size('mobileye_data.objects_detection_events')"
            before = query(self.url, size)
            until(lambda: query(self.url, size) != before, seconds, "a file is loaded")

    def now(self) -> str:
        ((moment,),) = query(self.url, "SELECT clock_timestamp()::text")
        return str(moment)

    def workers(self) -> list[psutil.Process]:
        """Returns the worker processes of the daemon; the naive program is its own worker."""
        assert self.daemon.process is not None
        return self.daemon.workers() if self._trial.is_ours else [psutil.Process(self.daemon.process.pid)]

    def finding(self, *figures: Figure) -> Finding:
        """Returns the verdict of the oracle on a drained rig."""
        if self.daemon.left():
            self.end()  # rows that it loads while the oracle looks would seem lost
        waiting, quarantined = marks_below(self.daemon.incoming), marks_below(self.daemon.failed)
        counts = judge(self.url, self.journal, waiting, quarantined)
        counts["torn"] += len(self.reader.torn)
        leaking = leaks(self.daemon.log().splitlines(), [self._trial.server.password])
        counts["leaks"] = len(leaking)
        finding = Finding(counts, [*figures, Figure("memory", self.meter.peak, 400, "MB")])
        finding.complaints += [f"the log leaks: {line[:300]}" for line in leaking[:3]]
        if not self.reader.looks:
            finding.complaints.append("the reader never looked")
        return finding

    def end(self) -> None:
        process = self.daemon.process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(20)


@dataclass(frozen=True)
class Sample:
    """The resources of one process of the daemon at a moment; `process` is its id and start time."""

    moment: float
    process: tuple[int, float]
    is_worker: bool
    memory: float
    descriptors: int
    threads: int


class Meter:
    """Memory, descriptors and threads of the daemon's processes."""

    _PAUSE = 0.25

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.peak = 0.0
        self.samples: list[Sample] = []

    def measure(self, stop: Event) -> None:
        while not stop.wait(self._PAUSE):
            process = self._daemon.process
            with suppress(psutil.Error):  # between an end and the next start
                if process is not None:
                    self._measure_all(psutil.Process(process.pid))

    def _measure_all(self, main: psutil.Process) -> None:
        for process in (main, *main.children(recursive=True)):
            with suppress(psutil.Error):  # it has just been killed
                sample = _measured(process)
                self.peak = max(self.peak, sample.memory)
                self.samples.append(sample)


def _measured(process: psutil.Process) -> Sample:
    with process.oneshot():
        return Sample(
            time.monotonic(),
            (process.pid, process.create_time()),
            is_worker(process),
            process.memory_info().rss / 1e6,
            process.num_fds(),
            process.num_threads(),
        )


def p99(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)] if times else 0.0
