"""Measures how long loads wait for housekeeping beside them: python -m benchmarks.waits.

A loader sends one small file after the other, while a large day is moved out of the partition "other", and
then dropped. Its times are those of whole transactions, from the first statement until COMMIT has returned.
"""

import secrets
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Annotated, TypeVar

import typer
from msgspec import json

from benchmarks.server import Server, execute, running_server
from db import schema
from db.connection import Database
from db.sink import PostgresSink
from processing.errors import TryAgain
from processing.file_types import KINDS
from processing.sink import Delivery
from service.upkeep import Upkeep

KIND = KINDS["objects_detection"]
TABLE = "mobileye_data.objects_detection_events"
T = TypeVar("T")

DAY, NEXT = date(2026, 6, 5), date(2026, 6, 6)


class Loader(threading.Thread):
    """Loads files of a day, one after the other, until it is stopped; keeps the seconds of each."""

    def __init__(self, url: str, day: date) -> None:
        super().__init__()
        self._url = url
        self._day = day
        self._stopped = threading.Event()
        self._vehicle = secrets.token_hex(8)
        self.seconds: list[float] = []
        self.repeats = 0

    def run(self) -> None:
        with closing(PostgresSink(Database(self._url))) as sink:
            number = 0
            while not self._stopped.is_set():
                number += 1
                content = self._content(number)
                started = time.perf_counter()
                while not self._is_loaded(sink, content):
                    self.repeats += 1
                self.seconds.append(time.perf_counter() - started)

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _content(self, number: int) -> bytes:
        at = datetime(self._day.year, self._day.month, self._day.day, tzinfo=UTC) + timedelta(seconds=number)
        rows = [{"object_type": name, "object_value": 1} for name in ("cars", "signs", "trucks")]
        event = {"vehicle_id": self._vehicle, "detection_time": at.isoformat(), "detections": rows}
        return json.encode({KIND.key: [event]})

    def _is_loaded(self, sink: PostgresSink, content: bytes) -> bool:
        """Loads a file as a worker does, which tries again if it did not get a lock in two seconds."""
        try:
            self._load(sink, content)
        except TryAgain:
            return False
        return True

    def _load(self, sink: PostgresSink, content: bytes) -> None:
        delivery = Delivery(sha256(content).digest(), "x.json", len(content), datetime.now(UTC))
        with sink.transaction(is_hasty=True) as transaction:
            transaction.loaded([delivery.sha256 or b""])
            transaction.begin_file(delivery, KIND)
            for parsed in KIND.parse(json.decode(content)[KIND.key]):
                transaction.write(parsed)
            transaction.commit()


@contextmanager
def loading(url: str, what: str) -> Iterator[None]:
    """Loads files of both days meanwhile, and prints what it took."""
    loaders = {day: Loader(url, day) for day in (DAY, NEXT)}
    for loader in loaders.values():
        loader.start()
    time.sleep(1)
    before = {day: len(loader.seconds) for day, loader in loaders.items()}
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        for loader in loaders.values():
            loader.stop()
    print(f"{what}: {seconds:.1f} s")
    for day, loader in loaders.items():
        times = loader.seconds[before[day] :]
        print(
            f"  {len(times)} loads of {day}: median {1000 * statistics.median(times):.1f} ms, "
            f"longest {1000 * max(times):.0f} ms, {loader.repeats} tried again",
            flush=True,
        )


def main(rows: Annotated[int, typer.Option(min=1000, help="Rows of the large day.")] = 1_000_000) -> None:
    """Prints the longest time of a load without housekeeping, while a day moves, and while it is dropped."""
    with running_server() as server:
        measure(server, rows)


def measure(server: Server, rows: int) -> None:
    with server.empty_database() as url:
        with closing(Database(url).connect()) as connection:
            schema.apply(connection)
        execute(url, f"SELECT mobileye_data.add_partition('objects_detection_events', '{NEXT}')")
        execute(
            url,
            f"""
            INSERT INTO {TABLE} SELECT md5((i % 3000)::text), '{DAY} 00:00:00+00'::timestamptz
                + i * interval '{86_000_000_000 // rows} microseconds', 'cars', 1, NULL, 1
            FROM generate_series(1, {rows}) i
            """,
        )
        execute(url, "CHECKPOINT")
        with loading(url, "nothing"):
            time.sleep(3)
        with loading(url, f"moving {rows:,} rows"):
            keep(url, Upkeep.bring_home)
        with loading(url, f"dropping {rows:,} rows"):
            while not keep(url, lambda upkeep: upkeep.drop_old(NEXT)):
                pass


def keep(url: str, task: Callable[[Upkeep], T]) -> T:
    """Does a task of housekeeping, as the daemon does."""
    with closing(Database(url).connect(autocommit=True)) as connection:
        return task(Upkeep(connection, print, pause))


def pause(seconds: float) -> bool:
    time.sleep(seconds)
    return False


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
