"""Kafka Connect with a JDBC sink, as a user would set it up for the same records: a standalone worker.

The connector is Debezium's, since those of Confluent and Aiven are not at Maven Central. It wants flat
records that carry their schema, so these are written for it; and a table that it can insert into as it
is, so it has one of its own, with the same key.
"""

import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2.extensions
from msgspec import json

from benchmarks.ours import wait_for
from tests.kafka import VERSION, Broker, find_jars
from tests.support import free_port

CONNECTOR = "3.2.0.Final"

_ARTIFACTS = (
    f"org.apache.kafka:connect-runtime:{VERSION}",
    f"org.apache.kafka:connect-json:{VERSION}",
    f"io.debezium:debezium-connector-jdbc:{CONNECTOR}",
    "org.postgresql:postgresql:42.7.7",
)

#: What Kafka's own start script gives a worker.
_JAVA = ("java", "-Xms256m", "-Xmx2g", "-server", "-XX:+UseG1GC", "-Djava.awt.headless=true")

TABLE = "connect_status"
MAKE_TABLE = f"""
    CREATE TABLE {TABLE} (
        vehicle_id text NOT NULL, report_time timestamptz NOT NULL, status text NOT NULL,
        PRIMARY KEY (vehicle_id, report_time))
"""

_SCHEMA = {
    "type": "struct",
    "fields": [
        {"field": "vehicle_id", "type": "string"},
        {"field": "report_time", "type": "string", "name": "io.debezium.time.ZonedTimestamp"},
        {"field": "status", "type": "string"},
    ],
}

#: Records that are polled and inserted at once; its own default is 500.
_BATCH = 5000


class Connect:
    """The worker, by its web interface."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._url = f"http://127.0.0.1:{port}/connectors/sink"

    def tasks(self) -> list[dict[str, Any]]:
        """Returns the state of each task, with the error if it failed."""
        with urllib.request.urlopen(f"{self._url}/status", timeout=60) as answer:
            found: list[dict[str, Any]] = json.decode(answer.read())["tasks"]
        return found

    def states(self) -> str:
        return ", ".join(sorted({str(task["state"]) for task in self.tasks()}))

    def restart(self) -> None:
        """Starts the tasks that failed again, as a person does."""
        address = f"{self._url}/restart?includeTasks=true&onlyFailed=true"
        urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=60).close()

    def is_running(self) -> bool:
        try:
            return [task["state"] for task in self.tasks()] == ["RUNNING"] * 2
        except OSError:  # it does not listen yet, or is busy
            return False


def with_schema(record: Mapping[str, Any]) -> bytes:
    """Returns a record as the JSON converter wants it."""
    return json.encode({"schema": _SCHEMA, "payload": record})


@contextmanager
def running_connect(
    broker: Broker, topic: str, url: str, folder: Path, **settings: object
) -> Iterator[Connect]:
    """Yields a worker that loads the topic by two tasks."""
    port = free_port()
    worker = {
        "bootstrap.servers": broker.servers,
        "listeners": f"HTTP://127.0.0.1:{port}",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "offset.storage.file.filename": folder / "offsets",
    }
    files = [
        _properties(folder / "worker", worker),
        _properties(folder / "sink", _sink(topic, url, settings)),
    ]
    classes = f"{find_jars(f'connect-{VERSION}', _ARTIFACTS)}/*"
    command = [*_JAVA, "-cp", classes, "org.apache.kafka.connect.cli.ConnectStandalone", *files]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        connect = Connect(port, process)
        wait_for(connect.is_running, process)
        yield connect
    finally:
        process.kill()
        process.wait()


def _sink(topic: str, url: str, settings: Mapping[str, object]) -> dict[str, object]:
    database = psycopg2.extensions.parse_dsn(url)
    address = f"{database['host']}:{database['port']}/{database['dbname']}"
    return {
        "name": "sink",
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "tasks.max": 2,
        "topics": topic,
        "connection.url": f"jdbc:postgresql://{address}?reWriteBatchedInserts=true",
        "connection.username": database["user"],
        "connection.password": database["password"],
        "insert.mode": "upsert",  # it delivers at least once
        "primary.key.mode": "record_value",
        "primary.key.fields": "vehicle_id,report_time",
        "collection.name.format": TABLE,
        "batch.size": _BATCH,
        "consumer.override.max.poll.records": _BATCH,
        "consumer.override.isolation.level": "read_committed",
        **settings,
    }


def _properties(path: Path, settings: Mapping[str, object]) -> str:
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return str(path)
