"""The contract of a sink of streams, kept by PostgreSQL and by memory."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from db.connection import Database
from db.stream import PostgresStream
from processing.detection_events import Detection
from processing.vehicle_status import StatusReport
from sinks.memory import MemorySink
from sinks.memory_stream import MemoryStream
from tests.contracts.stream import FoundReject, Kit, StreamContract
from tests.support import query


class MemoryKit(Kit):
    def __init__(self) -> None:
        self.sink = self.memory = MemoryStream(MemorySink())

    def vehicles(self) -> list[str]:
        rows = self.memory.sink.rows.values()
        return [row.vehicle_id for row in rows if isinstance(row, StatusReport)]

    def detected(self) -> int:
        return sum(isinstance(row, Detection) for row in self.memory.sink.rows.values())

    def rejects(self) -> list[FoundReject]:
        return [FoundReject(name, path, *placed) for name, path, placed in self.memory.places]

    def gaps(self) -> list[tuple[int, int | None, str]]:
        return [(gap.first_offset, gap.resume_offset, who) for gap, who in self.memory.gaps]


class PostgresKit(Kit):
    def __init__(self, database: Database, sink: PostgresStream) -> None:
        self.sink = sink
        self._url = database.url

    def vehicles(self) -> list[str]:
        rows = query(self._url, "SELECT vehicle_id FROM mobileye_data.vehicle_status_history")
        return [vehicle for (vehicle,) in rows]

    def detected(self) -> int:
        ((count,),) = query(self._url, "SELECT count(*) FROM mobileye_data.objects_detection_events")
        return int(count)

    def rejects(self) -> list[FoundReject]:
        rows = query(
            self._url,
            "SELECT name, path, partition, message_offset, message FROM mobileye_data.rejected_records"
            " JOIN mobileye_data.ingested_files USING (file_id) ORDER BY file_id, position",
        )
        return [
            FoundReject(name, path, partition, offset, None if value is None else bytes(value))
            for name, path, partition, offset, value in rows
        ]

    def gaps(self) -> list[tuple[int, int | None, str]]:
        return query(
            self._url,
            "SELECT first_offset, resume_offset, accepted_by FROM mobileye_data.stream_gaps ORDER BY 1",
        )


class TestMemory(StreamContract):
    @pytest.fixture
    def kit(self) -> Kit:
        return MemoryKit()


class TestPostgres(StreamContract):
    @pytest.fixture
    def kit(self, database: Database) -> Iterator[Kit]:
        with closing(PostgresStream(database)) as sink:
            yield PostgresKit(database, sink)
