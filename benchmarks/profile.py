"""Measures where the time of a load goes: the stages of one worker on the bulk files."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

from benchmarks.files import Made
from benchmarks.report import Figures
from benchmarks.server import execute
from db.chunk import Chunk
from db.connection import Database
from db.ledger import Entry
from db.sink import DelegatingTransaction, PostgresSink, PostgresTransaction
from db.tables import TABLES
from processing.batch import FileTask
from processing.document import Document
from processing.file_types import kind_of_name
from processing.loader import Loader
from processing.records import Parsed
from processing.sink import Counts, Delivery
from processing.text import open_text
from sources.folder import FolderSource
from sources.local_file import LocalFile, open_file
from sources.policy import OnLoaded

_MAX_BYTES = 1 << 40


class Clock:
    """A stopwatch that adds up seconds by name, of processor time or wall-clock time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measuring(self, name: str, now: Callable[[], float]) -> Iterator[None]:
        started = now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + now() - started


class _TimedTransaction(DelegatingTransaction):
    def __init__(self, inner: PostgresTransaction, clock: Clock) -> None:
        super().__init__(inner)
        self._clock = clock

    def commit(self) -> list[Counts]:
        self.inner.finish()
        with self._clock.measuring("commit, wall", time.perf_counter):
            return self.inner.commit()


class _TimedSink:
    def __init__(self, sink: PostgresSink, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock
        self.record_failure = sink.record_failure

    @contextmanager
    def transaction(self, *, is_hasty: bool = False) -> Iterator[_TimedTransaction]:
        with self._sink.transaction(is_hasty=is_hasty) as transaction:
            yield _TimedTransaction(transaction, self._clock)


class _TimedSource(FolderSource):
    clock: Clock

    def complete(self, file: LocalFile) -> None:
        with self.clock.measuring("delete, wall", time.perf_counter):
            super().complete(file)


def stages(folder: Path, files: list[Made], url: str) -> dict[str, float]:
    """Loads the files; returns microseconds a row by stage, of processor time except for stages "wall"."""
    gc.set_threshold(100_000, 50, 50)  # as a worker does
    clock = Clock()
    digest, parse, format_ = (_cpu(folder, files, step) for step in (_digest, _parse, _format))
    with closing(PostgresSink(Database(url))) as sink:
        source = _TimedSource(str(folder), str(folder / "failed"), "", OnLoaded.DELETE)
        source.clock = clock
        loader = Loader(source, _TimedSink(sink, clock), _MAX_BYTES)
        with clock.measuring("whole, wall", time.perf_counter), clock.measuring("worker", time.process_time):
            for made in files:
                loader.load([FileTask(made.path.name)])
        clock.seconds["server"] = _server_cpu(url)
    clock.seconds |= {"read and digest": digest, "parse and type": parse - digest, "format": format_ - parse}
    clock.seconds["send and the rest"] = clock.seconds.pop("worker") - format_
    rows = sum(len(made.rows) for made in files)
    return {name: seconds * 1e6 / rows for name, seconds in clock.seconds.items()}


def figures(turns: list[dict[str, float]]) -> list[Figures]:
    return [Figures("profile", name, "µs/row", [turn[name] for turn in turns]) for name in turns[0]]


def _cpu(folder: Path, files: list[Made], step: Callable[[LocalFile], None]) -> float:
    started = time.process_time()
    for made in files:
        with open_file(str(folder), made.path.name) as file:
            step(file)
    return time.process_time() - started


def _digest(file: LocalFile) -> None:
    file.digest()


def _parse(file: LocalFile) -> None:
    for _ in _parsed(file):
        pass


def _format(file: LocalFile) -> None:
    kind = kind_of_name(file.name)
    assert kind is not None
    entry = Entry(1, Delivery(b"", file.name, 0, None), kind.name)  # type: ignore[arg-type]
    chunk = Chunk(kind, TABLES[kind.name])
    for parsed in _parsed(file):
        chunk.add(entry, parsed)
        if chunk.is_full():
            chunk.data_of(chunk.order)
            chunk = Chunk(kind, TABLES[kind.name])
    chunk.data_of(chunk.order)


def _parsed(file: LocalFile) -> Iterator[Parsed]:
    file.digest()
    return Document(file.name, lambda: open_text(file, _MAX_BYTES), careful=False).parsed()


def _server_cpu(url: str) -> float:
    """Returns the processor time so far of the server processes of this database's loader."""
    rows = execute(url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'mobileye-data'")
    times = [psutil.Process(pid).cpu_times() for (pid,) in rows]
    return float(sum(spent.user + spent.system for spent in times))
