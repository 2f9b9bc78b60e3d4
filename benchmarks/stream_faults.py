"""Shows what our consumer, and Kafka Connect with a JDBC sink, do with bad records and an ill database."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
from msgspec import Struct, json

from benchmarks.connect import MAKE_TABLE, TABLE, Connect, running_connect, with_schema
from benchmarks.server import Server, execute, small_disk
from benchmarks.topics import Stream
from tests.kafka import Broker, unique
from tests.support import report
from tests.topics import sent

#: Good records before a fault, and as many in it.
_COUNT = 1000

#: How long a fault lasts, and how long the program may then take to get over it.
_FAULT_SECONDS = 20.0
_PATIENCE_SECONDS = 60.0

#: The disk of the database, and how much is written at once to fill it.
_MEGABYTES = 128
_PIECE = 64 * 1024

_STATUS = "mobileye_data.vehicle_status_history"
_DEAD = "dead-letters"


class Program(Struct, frozen=True):
    """What loads a topic, seen from outside."""

    name: str
    topic: str
    table: str
    written: Callable[[dict[str, Any]], bytes]
    set_aside: Callable[[], int]
    state: Callable[[], str]
    restart: Callable[[], None]


class Trial(Struct, frozen=True):
    """A program at work, with its database and the disk of that."""

    program: Program
    broker: Broker
    url: str
    disk: Path

    def stored(self) -> int:
        """Returns the number of good records that are stored."""
        statement = f"SELECT count(*) FROM {self.program.table} WHERE vehicle_id <> 'bad'"
        return int(execute(self.url, statement)[0][0])

    def until_stored(self, count: int) -> bool:
        """Waits for so many; returns whether they came in time."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self.stored() < count:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)
        return True


class Result(Struct, frozen=True):
    """What a fault left: the good records that are stored, of all; the others that are kept elsewhere."""

    fault: str
    program: str
    stored: int
    good: int
    set_aside: int
    state: str
    remark: str


def compare(server: Server, broker: Broker, folder: Path) -> list[Result]:
    """Runs the faults, one after the other, on each program."""
    results = []
    dead = {
        "errors.tolerance": "all",
        "errors.deadletterqueue.topic.replication.factor": 1,
        "errors.deadletterqueue.topic.name": _DEAD,
    }
    programs: list[Callable[[str], AbstractContextManager[Program]]] = [
        partial(_ours, broker),
        partial(_connect, broker, folder / "plain", {}),
        partial(_connect, broker, folder / "dead", dead),
    ]
    with small_disk(server, "small", _MEGABYTES) as disk:
        for running in programs:
            with server.database("small") as url:
                execute(url, MAKE_TABLE)
                with running(url) as program:
                    results += [_try(fault, Trial(program, broker, url, disk)) for fault in FAULTS]
    return results


def markdown(results: Iterable[Result]) -> str:
    """Returns the table of docs/benchmark.md."""
    lines = ["| fault | program | stored, of the good | set aside | state | |", "|---|---|---|---|---|---|"]
    for one in sorted(results, key=lambda one: list(FAULTS).index(one.fault)):
        cells = (
            one.fault,
            one.program,
            f"{one.stored:,} of {one.good:,}",
            one.set_aside,
            one.state,
            one.remark,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


@contextmanager
def _ours(broker: Broker, url: str) -> Iterator[Program]:
    stream = Stream(broker)
    for name in ("objects_detection_events", "vehicle_status"):
        broker.make_topic(stream.topic(name), 2)
    with stream.consumers(url, 1) as (pid,):
        process = psutil.Process(pid)
        yield Program(
            "consume",
            stream.topic("vehicle_status"),
            _STATUS,
            json.encode,
            lambda: int(execute(url, "SELECT count(*) FROM mobileye_data.rejected_records")[0][0]),
            lambda: "RUNNING" if process.status() != psutil.STATUS_ZOMBIE else "ENDED",
            lambda: None,
        )


@contextmanager
def _connect(broker: Broker, folder: Path, settings: dict[str, object], url: str) -> Iterator[Program]:
    folder.mkdir()
    topic = unique("flat")
    broker.make_topic(topic, 2)
    with running_connect(broker, topic, url, folder, **settings) as connect:
        yield Program(
            "Connect, dead letters" if settings else "Connect",
            topic,
            TABLE,
            with_schema,
            partial(sent, broker, _DEAD),
            partial(_state, connect),
            connect.restart,
        )


def _state(connect: Connect) -> str:
    for task in connect.tasks():
        if trace := task.get("trace"):
            print(trace[-3000:], file=sys.stderr)
    return connect.states()


def _bad(trial: Trial, send: Callable[[Sequence[bytes]], None]) -> None:
    """Sends a message that is no JSON, and a record that the database refuses."""
    send([b"{", trial.program.written(report(0, "\0", vehicle="bad"))])


def _read_only(trial: Trial, send: Callable[[Sequence[bytes]], None]) -> None:
    """Makes the database read-only for a while, as a failover or a full disk's guard does."""
    beside, _, name = trial.url.rpartition("/")
    end_sessions = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    execute(f"{beside}/postgres", f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    execute(f"{beside}/postgres", end_sessions)
    time.sleep(_FAULT_SECONDS)
    execute(f"{beside}/postgres", f"ALTER DATABASE {name} RESET ALL")
    execute(f"{beside}/postgres", end_sessions)


def _disk_full(trial: Trial, send: Callable[[Sequence[bytes]], None]) -> None:
    """Fills the disk for a while."""
    filler = trial.disk / "filler"
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * _PIECE)
    time.sleep(_FAULT_SECONDS)
    filler.unlink()


#: The bad records come last: whoever stops at them goes no further.
FAULTS = {"read-only": _read_only, "disk full": _disk_full, "two bad records": _bad}


def _try(fault: str, trial: Trial) -> Result:
    """Sends good records before, in and after the fault; returns what came of them."""
    program, before, aside = trial.program, trial.stored(), trial.program.set_aside()

    def send(values: Sequence[bytes]) -> None:
        for number, value in enumerate(values):
            trial.broker.send(program.topic, [value], number % 2)

    def send_good(part: str) -> None:
        vehicles = [f"{fault} {part} {number}" for number in range(_COUNT)]
        trial.broker.send(program.topic, [program.written(report(vehicle=name)) for name in vehicles])

    send_good("before")
    trial.until_stored(before + _COUNT)
    timer = Timer(1.0, send_good, ("in",))
    timer.start()
    FAULTS[fault](trial, send)
    timer.join()
    send_good("after")
    good, begun = before + 3 * _COUNT, time.monotonic()
    is_over = trial.until_stored(good)
    remark = f"{time.monotonic() - begun:.0f} s later" if is_over else ""
    state, stored, found = program.state(), trial.stored(), program.set_aside() - aside
    if not is_over:
        program.restart()
        trial.until_stored(good)
        remark = f"{trial.stored() - before:,} after a restart: {program.state()}"
    result = Result(fault, program.name, stored - before, good - before, found, state, remark)
    print(f"  {result}", file=sys.stderr)
    return result
