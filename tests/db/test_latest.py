"""The latest status of each vehicle, in whatever order and division reports come."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from psycopg2.extensions import cursor as Cursor

import db.latest
from db.connection import Database
from db.latest import Latest
from processing.records import Detection, Record, StatusReport
from tests.db.loading import load, sink_to
from tests.support import query, report, statuses

NOON = datetime(2022, 6, 5, 12, tzinfo=UTC)


@pytest.fixture
def cursor(database: Database) -> Iterator[Cursor]:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def told(
    second: int, status: str = "driving", vehicle: str = "car", extra: str | None = None
) -> StatusReport:
    return StatusReport(vehicle, NOON + timedelta(seconds=second), status, extra)


def flushed(cursor: Cursor, *reports: StatusReport, file_id: int = 1) -> list[tuple[object, ...]]:
    latest = Latest()
    latest.take(reports, file_id)
    latest.flush(cursor)
    cursor.execute("SELECT vehicle_id, status, extra, file_id FROM vehicle_status ORDER BY 1")
    return cursor.fetchall()


def test_the_newest_of_a_transaction_counts(cursor: Cursor) -> None:
    assert flushed(cursor, told(1), told(3, "parking", extra='{"a": 1}'), told(2, "accident")) == [
        ("car", "parking", {"a": 1}, 1)
    ]


def test_of_reports_with_one_time_the_first_counts(cursor: Cursor) -> None:
    assert flushed(cursor, told(1, "parking"), told(1, "driving")) == [("car", "parking", None, 1)]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (1, ("car", "parking", None, 1)),
        (2, ("car", "parking", None, 1)),
        (3, ("car", "driving", {"a": 1}, 2)),
    ],
)
def test_only_a_newer_one_overwrites_what_is_stored(
    cursor: Cursor, second: int, expected: tuple[object, ...]
) -> None:
    flushed(cursor, told(2, "parking"))
    assert flushed(cursor, told(second, extra='{"a": 1}'), file_id=2) == [expected]


def test_detections_are_none_of_its_business(cursor: Cursor) -> None:
    latest = Latest()
    latest.take([Detection("car", NOON, "cars", 1, None)], 1)
    latest.flush(cursor)
    cursor.execute("SELECT vehicle_id FROM vehicle_status")
    assert cursor.fetchall() == []


def test_thousands_of_vehicles_are_written_in_order(cursor: Cursor) -> None:
    reports = [told(1, vehicle=f"car-{i:05}") for i in range(2500)]
    assert [row[0] for row in flushed(cursor, *reports[::-1])] == [found.vehicle_id for found in reports]
    cursor.execute("SELECT vehicle_id FROM vehicle_status ORDER BY ctid")
    assert [row[0] for row in cursor.fetchall()] == [found.vehicle_id for found in reports]


def test_it_is_written_out_before_it_holds_too_many(
    monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    monkeypatch.setattr(db.latest, "_MOST", 2)
    monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 2)
    held = []
    take = Latest.take

    def watch(latest: Latest, records: Sequence[Record], file_id: int) -> None:
        take(latest, records, file_id)
        held.append(len(latest._reports))

    monkeypatch.setattr(Latest, "take", watch)
    reports = [report(20 - i, f"s{20 - i}", f"car-{i % 5}", km=i) for i in range(20)]
    with sink_to(database) as sink:
        load(sink, statuses(*reports))
    assert max(held) <= 3
    found = query(database.url, "SELECT vehicle_id, status FROM mobileye_data.vehicle_status ORDER BY 1")
    assert found == [(f"car-{i}", f"s{20 - i}") for i in range(5)]
