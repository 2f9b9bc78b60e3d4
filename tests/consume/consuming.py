"""What the tests of consuming share: topics of their own, consumers as processes, and what came of it."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import json

from tests.kafka import Broker, unique
from tests.support import Daemon, query, report, until

EVENTS, STATUS = "objects_detection_events", "vehicle_status"


class Fleet:
    """Topics with a prefix of their own, and the consumers of one group that load them into one database."""

    def __init__(self, folder: Path, url: str, broker: Broker, **settings: object) -> None:
        self.broker = broker
        self.prefix = unique("fleet")
        self.group = unique("group")
        self.url = url
        self.settings = {"KAFKA_SESSION_TIMEOUT_MS": 3000, "KAFKA_HEARTBEAT_INTERVAL_MS": 500, **settings}
        self.consumers_folder = folder
        self.consumers: list[Daemon] = []

    def topic(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def make(self, partitions: int = 1, **settings: str) -> None:
        for name in (EVENTS, STATUS):
            self.broker.make_topic(self.topic(name), partitions, **settings)

    def send(self, name: str, values: Iterable[bytes | None], partition: int = 0, **settings: Any) -> None:
        self.broker.send(self.topic(name), values, partition, **settings)

    def consumer(self, *arguments: str, wait: bool = True, **settings: object) -> Daemon:
        """Starts one more consumer."""
        daemon = Daemon(
            self.consumers_folder / f"consumer{len(self.consumers)}",
            self.url,
            KAFKA_BOOTSTRAP_SERVERS=self.broker.servers,
            KAFKA_TOPIC_PREFIX=self.prefix,
            KAFKA_GROUP=self.group,
            **self.settings,
            **settings,
        )
        self.consumers.append(daemon)
        daemon.start("consume", *arguments, wait=False)
        if wait:
            until(lambda: " consuming " in daemon.log(), 120, f"the consumer starts; log:\n{daemon.log()}")
        return daemon

    def stop(self) -> None:
        for daemon in self.consumers:
            if daemon.process is not None:
                daemon.process.send_signal(signal.SIGCONT)
                daemon.stop(signal.SIGKILL)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return query(self.url, statement)

    def positions(self) -> dict[tuple[str, int], int]:
        rows = self.rows("SELECT topic, partition, next_offset FROM mobileye_data.stream_positions")
        return {(topic.rpartition(".")[2], partition): offset for topic, partition, offset in rows}

    def until_at(self, name: str, *offsets: int, seconds: float = 40) -> None:
        """Waits until the partitions of a topic are loaded up to these offsets."""
        wanted = {(name, number): offset for number, offset in enumerate(offsets)}

        def is_there() -> bool:
            found = self.positions()
            return all(found.get(key, 0) >= offset for key, offset in wanted.items())

        try:
            until(is_there, seconds)
        except AssertionError:
            raise AssertionError(f"not at {wanted}: {self.positions()}\n{self.logs()}") from None

    def logs(self) -> str:
        return "\n".join(daemon.log()[-1500:] for daemon in self.consumers)

    @contextmanager
    def frozen_backend(self) -> Iterator[None]:
        """Stops the process of the database that works for the only consumer."""
        mine = "datname = current_database() AND application_name = 'mobileye-data'"
        found: list[tuple[int]] = []

        def is_only_one() -> bool:
            found[:] = self.rows(f"SELECT pid FROM pg_stat_activity WHERE {mine}")
            return len(found) == 1  # the one of a look at the positions may be about to end

        until(is_only_one)
        ((pid,),) = found
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def statuses(self) -> list[tuple[str, str]]:
        """Returns vehicle and status of all reports."""
        return self.rows("SELECT vehicle_id, status FROM mobileye_data.vehicle_status_history ORDER BY 1, 2")

    def counts(self) -> tuple[int, int, int, int]:
        """Returns the records of the ledger: read, inserted, duplicate, rejected."""
        ((read, inserted, duplicate, rejected),) = self.rows(
            "SELECT coalesce(sum(rows_read), 0)::int, coalesce(sum(rows_inserted), 0)::int,"
            " coalesce(sum(rows_duplicate), 0)::int, coalesce(sum(rows_rejected), 0)::int"
            " FROM mobileye_data.ingested_files"
        )
        return read, inserted, duplicate, rejected


def reports(*numbers: int, status: str = "driving") -> list[bytes]:
    """Returns a status report as the value of a message for each number, which is that of its vehicle."""
    return [json.encode(report(vehicle=f"v{number:06}", status=status)) for number in numbers]
