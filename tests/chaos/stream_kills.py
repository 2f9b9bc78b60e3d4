"""Kills a consumer or a publisher before or after any request or COMMIT; a restart must repair all."""

import json
from collections.abc import Iterator
from typing import Any

from confluent_kafka import IsolationLevel
from msgspec.json import encode

from tests.chaos.kills import TABLES, KillRig, Point
from tests.chaos.moments import AFTER, BEFORE, MomentRig
from tests.chaos.nursery import MAIN, Held
from tests.consume.consuming import EVENTS, STATUS
from tests.kafka import unique
from tests.kafka_proxy import disturbed_broker
from tests.support import detections, event, report, statuses
from tests.topics import ends_of, read_topic

#: The requests of Kafka's protocol that are points. Others repeat until something comes, or change nothing.
_REQUESTS = {
    0: "Produce",
    2: "ListOffsets",
    8: "OffsetCommit",
    11: "JoinGroup",
    13: "LeaveGroup",
    14: "SyncGroup",
    22: "InitProducerId",
    24: "AddPartitionsToTxn",
    26: "EndTxn",
}

#: What must be equal after any kill: of records of messages the entries and positions depend on the batches.
_ROWS = {
    "objects_detection_events": "SELECT vehicle_id, detection_time, object_type, object_value FROM {}",
    "vehicle_status": "SELECT vehicle_id, report_time, status FROM {}",
    "vehicle_status_history": "SELECT vehicle_id, report_time, status FROM {}",
    "rejected_records": "SELECT partition, message_offset, path, reason, message::text FROM {}",
    "stream_positions": "SELECT topic, partition, next_offset FROM {}",
    "ingested_files": """
        SELECT sha256::text, kind, sum(rows_read)::integer, sum(rows_inserted)::integer,
            sum(rows_duplicate)::integer, sum(rows_rejected)::integer, sum(deliveries) - count(*)
        FROM {} GROUP BY sha256, kind
        """,
}


_REJECTS, _LEDGER = "rejects", "ledger"

#: The length of a digest in the ledger, and the fields of its entry that are the same in each run.
_DIGEST = 64
_FIELDS = ("state", "name", "kind", "read", "published", "rejected", "empty", "reason")

#: The system calls of a publisher that are points.
_ACTS = {"rename", "renameat2", "unlink", "unlinkat", "link", "linkat", "openat", "flock"}


class StreamRig(MomentRig):
    """A broker behind a proxy; each request and its answer is a moment."""

    def prepare(self) -> None:
        super().prepare()
        self.broker, proxy = self._stack.enter_context(disturbed_broker())
        proxy.may_pass = self._may_pass
        self.servers = f"127.0.0.1:{proxy.port}"

    def _may_pass(self, number: int, is_answer: bool) -> bool:
        call = _REQUESTS.get(number)
        return call is None or not self.moments.reached(AFTER if is_answer else BEFORE, call)


class ConsumeRig(StreamRig):
    """Two topics with messages of every sort, and a database behind a proxy."""

    def dropped(self) -> Iterator[tuple[str, bytes]]:
        yield from ()

    def prepare(self) -> None:
        super().prepare()
        self._proxied_url = self._proxied_database()
        self._prefix = unique("points")
        for name in (EVENTS, STATUS):
            self.broker.make_topic(f"{self._prefix}.{name}", 2)
        for partition in range(2):
            self._send(partition)

    def reset(self) -> None:
        """Restores the tables, and with them the positions, to their state before the first run."""
        tables = ", ".join(f"mobileye_data.{table}" for table in (*TABLES, "stream_positions"))
        self.query(f"TRUNCATE {tables}")

    def torn(self) -> int:
        """Counts positions that do not fit the rows: each message has a row, a duplicate or a reject."""
        ((loaded, moved),) = self.query(
            """
            SELECT (SELECT coalesce(sum(CASE WHEN sha256 IS NULL THEN rows_read ELSE deliveries END), 0)
                    FROM mobileye_data.ingested_files),
                (SELECT coalesce(sum(next_offset), 0) FROM mobileye_data.stream_positions)
            """
        )
        return abs(int(loaded - moved))

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return {
            table: sorted(self.query(select.format(f"mobileye_data.{table}")), key=repr)
            for table, select in _ROWS.items()
        }

    def left(self) -> list[str]:
        """Returns partitions that are not loaded to their end."""
        found = self.query("SELECT topic, partition, next_offset FROM mobileye_data.stream_positions")
        positions = {(topic, partition): offset for topic, partition, offset in found}
        return [str(place) for place, end in self._ends().items() if positions.get(place, 0) != end]

    def _send(self, partition: int) -> None:
        """Sends single records, each of one row, documents, a repeated one, and what is rejected."""
        first = 100 * partition
        singles = [encode(event(first + n, ("cars", n))) for n in range(30)]
        document = detections(event(first + 50), event(first + 51))
        self.broker.send(f"{self._prefix}.{EVENTS}", [*singles, document, document, b"[1]"], partition)
        reports = [encode(report(first + n)) for n in range(30)]
        whole = statuses(*(report(first + n, vehicle="other") for n in range(20)))
        self.broker.send(f"{self._prefix}.{STATUS}", [*reports, reports[0], whole, None], partition)

    def _ends(self) -> dict[tuple[str, int], int]:
        return {
            (topic, partition): end
            for topic in (f"{self._prefix}.{name}" for name in (EVENTS, STATUS))
            for partition, end in ends_of(self.broker, topic, IsolationLevel.READ_COMMITTED).items()
        }

    def _held(self, thread: str = MAIN) -> Held:
        last = sum(self._ends().values())
        held = self.nursery.hold("consume", self.servers, self._prefix, self._proxied_url, str(last))
        self.moments.arm(held.pid, None)
        return held


class PublishRig(StreamRig):
    """A folder with the files of the other rigs, and topics that are new for each run."""

    def reset(self) -> None:
        """Restores the folder, and takes topics that nobody has written to."""
        super().reset()
        self._prefix = unique("points")
        for name in (EVENTS, STATUS, _REJECTS, _LEDGER):
            self.broker.make_topic(f"{self._prefix}.{name}", 1)

    def trace(self) -> list[Point]:
        """Returns each moment of a run without faults, and its acts on files."""
        moments = super().trace()
        return [*moments, *(point for point in self._trace(MAIN) if point.call in _ACTS)]

    def kill_at(self, point: Point) -> bool:
        return KillRig.kill_at(self, point) if point.thread == MAIN else super().kill_at(point)

    def torn(self) -> int:
        """Counts records that others see, and that the ledger does not have."""
        there = sum(
            len(value.get("detections", "1")) for name in (EVENTS, STATUS) for value in self._values(name)
        )
        return abs(there - sum(int(entry.get("published", 0)) for entry in self._ledger().values()))

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        messages = {
            name: sorted((json.dumps(value, sort_keys=True),) for value in self._values(name))
            for name in (EVENTS, STATUS, _REJECTS)
        }
        entries = sorted(
            (key, *(entry.get(field) for field in _FIELDS)) for key, entry in self._ledger().items()
        )
        return {**messages, "ingested_files": entries}

    def _values(self, name: str) -> Iterator[Any]:
        return (message.value for message in read_topic(self.broker, f"{self._prefix}.{name}"))

    def _ledger(self) -> dict[str, dict[str, Any]]:
        """Returns the last entry of each file, by its digest."""
        messages = read_topic(self.broker, f"{self._prefix}.{_LEDGER}")
        return {message.key: message.value for message in messages if len(message.key) == _DIGEST}

    def _held(self, thread: str = MAIN) -> Held:
        held = self.nursery.hold("publish", str(self.folder), self.servers, self._prefix, thread=thread)
        self.moments.arm(held.pid, None)
        return held
