"""What every leg starts from: a database, a daemon as a process, producers, and those who watch them."""

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
from tests.chaos.oracle import Reader, judge, leaks
from tests.chaos.producers import LARGEST, Journal, Producers
from tests.support import ROOT, Daemon, Server, query, until

#: What a proxy can read.
_PLAIN = "sslmode=disable&gssencmode=disable"

#: With larger files the naive program would only be seen to be slow.
_NAIVE_ROWS = 60


class NaiveDaemon(Daemon):
    """The naive program in the daemon's place."""

    program = ROOT / "tests" / "chaos" / "naive.py"


@dataclass(frozen=True)
class Figure:
    """A measured value and the most that it may be."""

    name: str
    value: float
    limit: float
    unit: str = "s"

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3g} {self.unit}"


@dataclass
class Finding:
    """What a leg has found: the oracle's counts, figures, and anything else that is wrong, in words."""

    counts: Counter[str] = field(default_factory=Counter)
    figures: list[Figure] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@dataclass
class Trial:
    """One run of a leg: where, with what chances, how much of it, and until when.

    share: of a full run; seconds: after which the leg is given up.
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
        """Sets the volume to this trial's share of all that there is."""
        self.volume = max(1, math.ceil(count * min(self.share, 1)))

    def rounds(self, step: int = 1) -> Iterator[int]:
        """Until the volume is reached, or the time is up."""
        while self.done < self.volume and time.monotonic() < self._deadline:
            yield self.done
            self.done += step

    @contextmanager
    def rig(self, port: int | None = None, **settings: object) -> Iterator["Rig"]:
        """A rig in a database and a folder of its own; port: where the daemon finds the server."""
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
    """A daemon under test, with its journal and its witnesses."""

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
        """The daemon runs, a reader looks for torn files, and its memory is measured."""
        self.daemon.start()
        with beside(self.reader.watch), beside(self.meter.measure):
            yield

    @contextmanager
    def loaded(self, producers: int = 4) -> Iterator[Producers]:
        """The same under load; at the end the backlog drains."""
        largest = LARGEST if self._trial.is_ours else _NAIVE_ROWS
        work = Producers(self.daemon.incoming, self.journal, self._trial.seed, producers, largest)
        with self.watched():
            with work.at_work():
                yield work
            self.revive()
            self.drain()

    def drop(self, rows: int = 0) -> Path:
        """One more file of the runner's own."""
        file = self.journal.draw(self.rng, rows)
        self.journal.add(file)
        return self.daemon.drop(file.name, file.content())

    def seconds_to_load(self, most: float) -> float:
        """One more small file, from its drop until it is gone, or so many seconds."""
        started = time.monotonic()
        path = self.drop(12)
        with suppress(AssertionError):  # the figure and the oracle tell
            until(lambda: not path.exists(), most)
        return time.monotonic() - started

    def revive(self) -> None:
        """Starts the daemon if it has ended."""
        if self.daemon.process is None or self.daemon.process.poll() is not None:
            self.daemon.start(wait=False)

    def drain(self, seconds: float = 900) -> None:
        """Waits for the backlog; what is left then is counted.

        For long: on a slow machine large files hardly get through between two kills, and gather.
        """
        with suppress(AssertionError):
            self.daemon.until_empty(seconds)

    def until_commit(self, since: str, seconds: float = 30) -> None:
        """Waits for a file that was loaded after that moment of the server's clock."""
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
        """The daemon's worker processes; the naive program is its own."""
        assert self.daemon.process is not None
        process = psutil.Process(self.daemon.process.pid)
        if not self._trial.is_ours:
            return [process]
        return [child for child in process.children() if _is_worker(child)]

    def finding(self, *figures: Figure) -> Finding:
        """What the oracle says of a drained rig."""
        if self.daemon.left():
            self.end()  # what it loads while the oracle looks would seem to be lost
        counts = judge(self.url, self.journal, self.daemon.incoming, self.daemon.failed)
        counts["torn"] += len(self.reader.torn)
        leaking = leaks(self.daemon.log().splitlines(), [self._trial.server.password])
        counts["leaks"] = len(leaking)
        finding = Finding(counts, [*figures, Figure("memory", self.meter.peak, 400, "MB")])
        finding.complaints += [f"the log tells: {line[:300]}" for line in leaking[:3]]
        if not self.reader.looks:
            finding.complaints.append("the reader never looked")
        return finding

    def end(self) -> None:
        process = self.daemon.process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(20)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Sample:
    """What one process of the daemon took at a moment; process: its id and when it began."""

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
            _is_worker(process),
            process.memory_info().rss / 1e6,
            process.num_fds(),
            process.num_threads(),
        )


def p99(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)] if times else 0.0
