"""The latest status of each vehicle, in whatever order and division reports come."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import json
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

import db.latest_status
from db.connection import Database
from db.days import MOST_SPANS
from db.latest_status import LatestStatus
from db.tables import DETECTIONS, STATUS_HISTORY, Table
from processing.detection_events import Detection
from processing.records import Record
from processing.vehicle_status import StatusReport
from tests.db.loading import load, locked, sink_to
from tests.support import query, report, statuses

NOON = datetime(2022, 6, 5, 12, tzinfo=UTC)


@pytest.fixture
def cursor(database: Database) -> Iterator[Cursor]:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def reported(
    second: int, status: str = "driving", vehicle: str = "car", extra: str | None = None
) -> StatusReport:
    return StatusReport(vehicle, NOON + timedelta(seconds=second), status, extra)


def store(cursor: Cursor, *reports: StatusReport, file_id: int = 1) -> None:
    """As rows of the history, a thousand at a time."""
    for start in range(0, len(reports), 1000):
        rows = [STATUS_HISTORY.row(report, file_id) for report in reports[start : start + 1000]]
        execute_values(cursor, "INSERT INTO vehicle_status_history VALUES %s", rows, page_size=1000)


def flushed(cursor: Cursor, *reports: StatusReport, file_id: int = 1) -> list[tuple[object, ...]]:
    latest = LatestStatus()
    store(cursor, *reports, file_id=file_id)
    latest.observe(STATUS_HISTORY, reports)
    latest.flush(cursor)
    cursor.execute("SELECT vehicle_id, status, extra, file_id FROM vehicle_status ORDER BY 1")
    return cursor.fetchall()


def test_the_newest_of_a_transaction_counts(cursor: Cursor) -> None:
    assert flushed(
        cursor, reported(1), reported(3, "parking", extra='{"a": 1}'), reported(2, "accident")
    ) == [("car", "parking", {"a": 1}, 1)]


def test_of_reports_with_one_time_that_of_the_history_counts(cursor: Cursor) -> None:
    store(cursor, reported(1, "parking"))
    latest = LatestStatus()
    latest.observe(STATUS_HISTORY, [reported(1, "driving")])
    latest.flush(cursor)
    cursor.execute("SELECT vehicle_id, status, file_id FROM vehicle_status")
    assert cursor.fetchall() == [("car", "parking", 1)]


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
    flushed(cursor, reported(2, "parking"))
    if second == 2:
        cursor.execute("DELETE FROM vehicle_status_history")
    assert flushed(cursor, reported(second, extra='{"a": 1}'), file_id=2) == [expected]


def test_detections_are_none_of_its_business(cursor: Cursor) -> None:
    latest = LatestStatus()
    latest.observe(DETECTIONS, [Detection("car", NOON, "cars", 1, None)])
    latest.flush(cursor)
    cursor.execute("SELECT vehicle_id FROM vehicle_status")
    assert cursor.fetchall() == []


def test_thousands_of_vehicles_are_written_in_order(cursor: Cursor) -> None:
    reports = [reported(1, vehicle=f"car-{i:05}") for i in range(2500)]
    assert [row[0] for row in flushed(cursor, *reports[::-1])] == [found.vehicle_id for found in reports]
    cursor.execute("SELECT vehicle_id FROM vehicle_status ORDER BY ctid")
    assert [row[0] for row in cursor.fetchall()] == [found.vehicle_id for found in reports]


def test_what_is_sent_does_not_grow_with_the_fields(cursor: Cursor) -> None:
    sent = []
    for name, extra in (("a", None), ("b", json.encode({"a": "x" * 100_000}).decode())):
        reports = [reported(1, vehicle=f"{name}{i:02}", extra=extra) for i in range(50)]
        latest = LatestStatus()
        store(cursor, *reports)
        latest.observe(STATUS_HISTORY, reports)
        latest.flush(cursor)
        sent.append(len(cursor.query or b""))
    assert sent[0] == sent[1]
    cursor.execute("SELECT count(*), max(length(extra::text)) FROM vehicle_status")
    assert cursor.fetchall() == [(100, 100_009)]


@pytest.mark.parametrize("gap", [1, 2])
def test_vehicles_are_found_on_whatever_day_they_were_heard_of_last(cursor: Cursor, gap: int) -> None:
    """With a gap the days are more spans than a statement has."""
    reports = [reported(86_400 * gap * i, f"s{i}", f"car-{i:03}") for i in range(MOST_SPANS + 2)]
    for found in reports[::3]:
        cursor.execute("SELECT add_partition('vehicle_status_history', %s)", (found.report_time.date(),))
    assert flushed(cursor, *reports) == [(found.vehicle_id, found.status, None, 1) for found in reports]


def test_other_days_are_not_locked(cursor: Cursor) -> None:
    for day in range(5, 10):
        cursor.execute("SELECT add_partition('vehicle_status_history', %s)", (f"2022-06-{day:02}",))
    cursor.connection.commit()
    flushed(cursor, reported(0, vehicle="x"), reported(86_400 * 4, vehicle="y"))
    assert locked(cursor, STATUS_HISTORY) == ["20220605", "20220609"]


@pytest.mark.parametrize(("most", "limit"), [("_MOST", 2), ("_MOST_CHARACTERS", len("car-1car-2"))])
def test_it_is_written_out_before_it_holds_too_many(
    monkeypatch: pytest.MonkeyPatch, database: Database, most: str, limit: int
) -> None:
    monkeypatch.setattr(db.latest_status, most, limit)
    monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 2)
    held = []
    observe = LatestStatus.observe

    def watch(latest: LatestStatus, table: Table, records: Sequence[Record]) -> None:
        observe(latest, table, records)
        held.append(latest._vehicles)

    monkeypatch.setattr(LatestStatus, "observe", watch)
    reports = [report(20 - i, f"s{20 - i}", f"car-{i % 5}", km=i) for i in range(20)]
    with sink_to(database) as sink:
        load(sink, statuses(*reports))
    assert max(held) <= 3
    found = query(database.url, "SELECT vehicle_id, status FROM mobileye_data.vehicle_status ORDER BY 1")
    assert found == [(f"car-{i}", f"s{20 - i}") for i in range(5)]
