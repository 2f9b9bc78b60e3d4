"""Topics of a broker, with our publisher before them and our consumers behind them, as processes."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import psutil
import psycopg2
from msgspec import Struct

from benchmarks import ours
from benchmarks.fleet import used
from benchmarks.places import FolderPlace
from tests.kafka import Broker

#: How long a frozen consumer stays a member of its group.
_SESSION_MS = 300_000

#: How often it is looked whether all is stored.
_LOOK_SECONDS = 0.02

_STORED = "SELECT coalesce(sum(rows_inserted), 0) FROM mobileye_data.ingested_files"


class Cost(Struct, frozen=True):
    """The seconds of the clock, and those of the processor of each program."""

    seconds: float
    processor: dict[str, float]

    def of_each(self, rows: int) -> str:
        """Returns the processor time of each row, in microseconds."""
        parts = [f"{name} {1e6 * used / rows:.2f}" for name, used in self.processor.items() if used]
        return f"{' + '.join(parts)} µs a row"


class Stream:
    """Topics with a prefix of their own."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.prefix = f"bench-{secrets.token_hex(6)}"
        self._settings = {"KAFKA_BOOTSTRAP_SERVERS": broker.servers, "KAFKA_TOPIC_PREFIX": self.prefix}

    def topic(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    @contextmanager
    def publisher(self, place: FolderPlace) -> Iterator[int]:
        """Yields the publisher of a folder."""
        settings = {**self._settings, **place.settings}
        with ours.running(None, None, ours.ROOT, ("publish",), False, **settings) as daemon:
            yield daemon.process.pid

    @contextmanager
    def consumers(self, url: str, count: int) -> Iterator[list[int]]:
        """Yields so many consumers of a group of their own, of which each reads some partitions."""
        settings = {
            **self._settings,
            "KAFKA_GROUP": f"bench-{secrets.token_hex(6)}",
            "KAFKA_SESSION_TIMEOUT_MS": _SESSION_MS,
        }
        with ExitStack() as stack:
            daemons = [stack.enter_context(_consumer(url, settings)) for _ in range(count)]
            for daemon in daemons:
                ours.wait_for(_says(daemon.log, b"reading partitions"), daemon.process)
            yield [daemon.process.pid for daemon in daemons]


def _consumer(url: str, settings: dict[str, object]) -> AbstractContextManager[ours.Daemon]:
    return ours.running(url, None, ours.ROOT, ("consume",), False, b" consuming ", **settings)


def _says(log: Path, words: bytes) -> Callable[[], bool]:
    return lambda: words in log.read_bytes()


def until_stored(url: str, rows: int) -> None:
    """Waits until the database has so many rows."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        while True:
            cursor.execute(_STORED)
            if (cursor.fetchone() or (0,))[0] >= rows:
                return
            time.sleep(_LOOK_SECONDS)


@contextmanager
def timed(**programs: Sequence[int]) -> Iterator[list[Cost]]:
    """Fills the list with what it costs, at the end."""
    found: list[Cost] = []
    before = {name: sum(map(used, of_it)) for name, of_it in programs.items()}
    started = time.perf_counter()
    yield found
    seconds = time.perf_counter() - started
    after = {name: sum(map(used, of_it)) for name, of_it in programs.items()}
    found.append(Cost(seconds, {name: after[name] - before[name] for name in programs}))


def server_of(url: str) -> int:
    """Returns the process of PostgreSQL's that all its sessions are of."""
    with closing(psycopg2.connect(url)) as connection:
        parent: int = psutil.Process(connection.info.backend_pid).ppid()
        return parent
