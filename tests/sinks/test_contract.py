"""The contract of a sink, kept by PostgreSQL and by memory."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from db.connection import Database
from db.sink import PostgresSink
from processing.sink import Counts
from processing.vehicle_status import StatusReport
from sinks.memory import MemorySink
from tests.contracts.sink import KeyedSinkContract, Kit, LedgerRow
from tests.support import query


class MemoryKit(Kit):
    def __init__(self) -> None:
        self.sink = self.memory = MemorySink(max_future_hours=24)

    def statuses(self) -> dict[tuple[str, int], str]:
        rows = [row for row in self.memory.rows.values() if isinstance(row, StatusReport)]
        return {
            (row.vehicle_id, row.report_time.minute): row.status
            for row in sorted(rows, key=lambda row: (row.vehicle_id, row.report_time))
        }

    def ledger(self) -> list[LedgerRow]:
        entries = self.memory.ledger.values()
        return sorted((entry.name, entry.state, entry.deliveries, entry.counts) for entry in entries)

    def extras(self) -> list[Any]:
        entries = sorted(self.memory.ledger.values(), key=lambda entry: entry.name)
        return [json.loads(entry.extra) if entry.extra else None for entry in entries]

    def rejects(self) -> list[tuple[str, str]]:
        rejected = [reject for entry in self.memory.ledger.values() for reject in entry.rejected]
        return sorted((reject.reason, reject.path) for reject in rejected)


class PostgresKit(Kit):
    def __init__(self, database: Database, sink: PostgresSink) -> None:
        self.sink = sink
        self._url = database.url

    def statuses(self) -> dict[tuple[str, int], str]:
        rows = query(
            self._url,
            "SELECT vehicle_id, extract(minute FROM report_time)::int, status"
            " FROM mobileye_data.vehicle_status_history ORDER BY 1, 2",
        )
        return {(vehicle, minute): status for vehicle, minute, status in rows}

    def ledger(self) -> list[LedgerRow]:
        rows = query(
            self._url,
            "SELECT last_name, state, deliveries, rows_read, rows_inserted, rows_duplicate, rows_rejected"
            " FROM mobileye_data.ingested_files ORDER BY 1",
        )
        return [(name, state, deliveries, Counts(*counts)) for name, state, deliveries, *counts in rows]

    def extras(self) -> list[Any]:
        return [
            extra
            for (extra,) in query(self._url, "SELECT extra FROM mobileye_data.ingested_files ORDER BY name")
        ]

    def rejects(self) -> list[tuple[str, str]]:
        return query(self._url, "SELECT reason, path FROM mobileye_data.rejected_records ORDER BY 1, 2")


class TestMemory(KeyedSinkContract):
    @pytest.fixture
    def kit(self) -> Kit:
        return MemoryKit()


class TestPostgres(KeyedSinkContract):
    @pytest.fixture
    def kit(self, database: Database) -> Iterator[Kit]:
        with closing(PostgresSink(database, max_future_hours=24)) as sink:
            yield PostgresKit(database, sink)
