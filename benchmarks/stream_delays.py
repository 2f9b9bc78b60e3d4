"""Measures how long it takes until a record, or a small file, can be seen in PostgreSQL."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import psycopg2
from msgspec import Raw, json

from benchmarks import ours
from benchmarks.contenders import count_made
from benchmarks.files import FIRST_DAY, KINDS, TABLES, Fleet, Made, make_files
from benchmarks.fleet import WARM_UP, count_differences
from benchmarks.places import FolderPlace, folder_place
from benchmarks.report import Figures, Ratio
from benchmarks.server import Server
from benchmarks.topics import Stream, until_stored
from tests.kafka import Broker

#: How many of each, their rows, and the seconds between two of them.
_RECORDS, _RECORD_SECONDS = 500, 0.02
_FILES, _FILE_ROWS, _FILE_SECONDS = 100, 12, 0.1

#: How often the table is looked at: a delay may be too long by so much.
_LOOK_SECONDS = 0.002

_KIND = KINDS[1]
_SEEN = f"SELECT report_time FROM mobileye_data.{TABLES[_KIND]} WHERE report_time >= %s"


def measure(server: Server, broker: Broker, folder: Path) -> tuple[list[Figures], list[Ratio]]:
    """Sends records to a consumer, then drops files for a publisher, one by one."""
    stream, fleet = Stream(broker), Fleet(seed=17)
    records = [fleet.make(folder / "records", _KIND, 1, number) for number in range(_RECORDS)]
    files = [fleet.make(folder / "files", _KIND, _FILE_ROWS, number) for number in range(_FILES)]
    warm_up = make_files(folder / "delays", [12] * WARM_UP, seed=18, day=FIRST_DAY + timedelta(days=1))
    with (
        folder_place() as place,
        server.database() as url,
        stream.publisher(place),
        stream.consumers(url, 1),
    ):
        place.put(warm_up)
        until_stored(url, count_made(warm_up))
        delays = {
            "record": _delays(url, records, _sender(stream), _RECORD_SECONDS),
            "small file": _delays(url, files, _dropper(place), _FILE_SECONDS),
        }
        ours.wait_for(place.is_empty)
        differences = count_differences(url, [*warm_up, *records, *files])
        assert differences == 0, f"{differences} rows differ"
    figures = [
        Figures("delay", name, f"ms p{percent}", [1000 * statistics.quantiles(found, n=100)[percent - 1]])
        for name, found in delays.items()
        for percent in (50, 95)
    ]
    return figures, [
        Ratio(f"{row.contender}: {row.unit}", row.median, "≤ 100" if row.unit == "ms p50" else "")
        for row in figures
    ]


def _sender(stream: Stream) -> Callable[[Made], None]:
    """Returns what sends the one record of a file."""
    producer = stream.broker.producer(linger_ms=0)
    topic = stream.topic("vehicle_status")

    def send(made: Made) -> None:
        (record,) = json.decode(made.path.read_bytes(), type=dict[str, list[Raw]])["vehicle_status"]
        producer.produce(topic, bytes(record), str(made.rows[0][0]))
        producer.poll(0)

    return send


def _dropper(place: FolderPlace) -> Callable[[Made], None]:
    return lambda made: place.put([made])


def _delays(url: str, items: Sequence[Made], put: Callable[[Made], None], seconds: float) -> list[float]:
    """Puts an item each so many seconds; returns how long it took until all rows of each were visible."""
    missing = [{datetime.fromisoformat(str(row[1])) for row in made.rows} for made in items]
    first = min(missing[0])
    begun: list[float] = []
    delays: dict[int, float] = {}
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        started = time.perf_counter()
        while len(delays) < len(items):
            if len(begun) < len(items) and time.perf_counter() >= started + seconds * len(begun):
                begun.append(time.perf_counter())
                put(items[len(begun) - 1])
            cursor.execute(_SEEN, (first,))
            seen, now = {time for (time,) in cursor.fetchall()}, time.perf_counter()
            for number in range(len(begun)):
                if number not in delays and missing[number] <= seen:
                    delays[number] = now - begun[number]
            time.sleep(_LOOK_SECONDS)
    return list(delays.values())
