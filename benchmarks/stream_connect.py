"""Compares our consumers with Kafka Connect and a JDBC sink, on the same reports."""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from msgspec import json

from benchmarks.connect import CONNECTOR, MAKE_TABLE, TABLE, running_connect, with_schema
from benchmarks.contenders import Bench
from benchmarks.files import KINDS, TABLES, Fleet
from benchmarks.report import Figures, Ratio, ratio
from benchmarks.server import execute
from benchmarks.topics import Stream, server_of, timed
from tests.kafka import Broker, unique
from tests.support import frozen

_PARTITIONS = 6

#: Reports that warm it up, and those that are timed.
_WARM_UP, _REPORTS = 12_000, 60_000

_FIELDS = ("vehicle_id", "report_time", "status")
_LACKS = f"Debezium's sink {CONNECTOR}: records with their schema, one plain table, no ledger, no rejects"


class Reports:
    """The reports that both load."""

    def __init__(self, bench: Bench, broker: Broker) -> None:
        rows = Fleet(seed=19).make(bench.folder / "reports", KINDS[1], _WARM_UP + _REPORTS, 0).rows
        self._reports = [dict(zip(_FIELDS, row, strict=True)) for row in rows]
        self._bench = bench
        self._broker = broker

    def compare(self) -> tuple[list[Figures], list[Ratio]]:
        """Lets two consumers and two tasks of a worker load them in turns."""
        contenders = {"consume, 2": self._consume, "Kafka Connect": self._connect}
        figures = self._bench.take_turns("reports", "rows/s", contenders)
        consume, connect = figures.values()
        connect.remark = _LACKS
        return [consume, connect], [ratio(consume, connect, "reports: consume / Kafka Connect", "")]

    def _consume(self) -> float:
        stream = Stream(self._broker)
        for name in ("objects_detection_events", "vehicle_status"):
            self._broker.make_topic(stream.topic(name), _PARTITIONS)
        with self._bench.server.database() as url, stream.consumers(url, 2) as pids:
            table = f"mobileye_data.{TABLES[KINDS[1]]}"
            return self._time(url, stream.topic("vehicle_status"), json.encode, table, pids)

    def _connect(self) -> float:
        topic = unique("flat")
        self._broker.make_topic(topic, _PARTITIONS)
        with self._bench.server.database() as url, tempfile.TemporaryDirectory() as folder:
            execute(url, MAKE_TABLE)
            with running_connect(self._broker, topic, url, Path(folder)) as connect:
                return self._time(url, topic, with_schema, TABLE, [connect.process.pid])

    def _time(
        self, url: str, topic: str, encode: Callable[[Any], bytes], table: str, pids: Sequence[int]
    ) -> float:
        """Returns the rate of programs that find all reports in the topic."""
        self._send(topic, [encode(one) for one in self._reports[:_WARM_UP]])
        _until_stored(url, table, _WARM_UP)
        with frozen(*pids):
            self._send(topic, [encode(one) for one in self._reports[_WARM_UP:]])
        with timed(programs=pids, broker=[self._broker.pid], PostgreSQL=[server_of(url)]) as costs:
            _until_stored(url, table, len(self._reports))
        print(f"  {costs[0].of_each(_REPORTS)}", file=sys.stderr)
        self._check(url, table)
        return _REPORTS / costs[0].seconds

    def _send(self, topic: str, values: Sequence[bytes]) -> None:
        for number in range(_PARTITIONS):
            self._broker.send(topic, values[number::_PARTITIONS], number)

    def _check(self, url: str, table: str) -> None:
        """Checks that the table has each report once."""
        stored = execute(url, f"SELECT {', '.join(_FIELDS)} FROM {table}")
        found = sorted(
            (vehicle, f"{time_.astimezone(UTC):%FT%T.%f}"[:23] + "Z", status)
            for vehicle, time_, status in stored
        )
        assert found == sorted(tuple(one.values()) for one in self._reports)


def _until_stored(url: str, table: str, count: int) -> None:
    while execute(url, f"SELECT count(*) FROM {table}") != [(count,)]:
        time.sleep(0.05)
