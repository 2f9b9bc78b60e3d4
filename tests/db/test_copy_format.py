"""Rows in COPY's binary format, as the server itself reads them."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import cursor as Cursor

import db.copy_format
from db.connection import Database
from db.copy_format import CopyRows, copy_data
from db.insert import copy_rows
from db.tables import TABLES
from processing.detection_events import Detection
from processing.records import Record
from processing.vehicle_status import StatusReport
from tests.db.loading import kind_of

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
TIME = st.datetimes(
    datetime(1, 1, 2), datetime(9998, 12, 30), timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7))])
)
EXTRA = st.sampled_from([None, "{}", '{"a": "ü"}'])
INTEGER = st.integers(-(2**31), 2**31 - 1)


@pytest.fixture
def cursor(database: Database) -> Iterator[Cursor]:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        yield cursor


def packed(*records: Record, file_id: int = 7) -> CopyRows:
    rows = CopyRows()
    TABLES[kind_of(records[0]).name].pack(rows, records, file_id)
    return rows


def stored(cursor: Cursor, *records: Record, file_id: int) -> list[tuple[object, ...]]:
    """What the server makes of the records, by their place."""
    table = TABLES[kind_of(records[0]).name]
    cursor.execute(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS copied (LIKE {table.full_name}, place serial); "
        "TRUNCATE copied RESTART IDENTITY"
    )
    rows = packed(*records, file_id=file_id).rows
    copy_rows(cursor, table, copy_data(rows), len(rows), "copied")
    columns = ", ".join(f"{name}::text" if name == "extra" else name for name in table.columns)
    cursor.execute(f"SELECT {columns} FROM copied ORDER BY place")
    return cursor.fetchall()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.builds(Detection, TEXT, TIME, TEXT, INTEGER, EXTRA), min_size=1, max_size=20),
    st.integers(1, 2**62),
)
def test_a_detection_arrives_as_it_is(cursor: Cursor, records: list[Detection], file_id: int) -> None:
    assert stored(cursor, *records, file_id=file_id) == [
        (r.vehicle_id, r.detection_time, r.object_type, r.object_value, r.extra, file_id) for r in records
    ]
    cursor.connection.rollback()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.builds(StatusReport, TEXT, TIME, TEXT, EXTRA), min_size=1, max_size=20), st.integers(1, 2**62)
)
def test_a_report_arrives_as_it_is(cursor: Cursor, records: list[StatusReport], file_id: int) -> None:
    assert stored(cursor, *records, file_id=file_id) == [
        (r.vehicle_id, r.report_time, r.status, r.extra, file_id) for r in records
    ]
    cursor.connection.rollback()


def test_two_vehicles_may_share_a_time_object(cursor: Cursor) -> None:
    time = datetime(2022, 6, 5, tzinfo=UTC)
    records = [Detection(vehicle, time, "cars", 1, None) for vehicle in ("a", "b")]
    assert [row[0] for row in stored(cursor, *records, file_id=1)] == ["a", "b"]


def test_days_are_those_of_utc() -> None:
    zone = timezone(timedelta(hours=5))
    times = [datetime(1999, 12, 31, 23, tzinfo=UTC), datetime(2022, 6, 6, 4, 59, tzinfo=zone)]
    found = packed(*[StatusReport("car", time, "x", None) for time in times])
    assert found.dates() == [date(1999, 12, 31), date(2022, 6, 5)]


def test_rows_in_the_order_of_bytes_are_in_that_of_keys() -> None:
    """For vehicle ids of one length and times since 2000, as usual: else it would only be slower."""
    times = [datetime(2022, 6, 5, tzinfo=UTC) + timedelta(microseconds=3**i) for i in range(30)]
    records = [StatusReport(f"car-{i % 3}", time, "x", None) for i, time in enumerate(times)]
    in_order = sorted(records, key=lambda record: (record.vehicle_id, record.report_time))
    assert sorted(packed(*records).rows) == packed(*in_order).rows


def test_what_is_kept_of_values_is_bounded() -> None:
    """Neither long names of vehicles nor unknown fields nor any number of types."""
    noon = datetime(2022, 6, 5, tzinfo=UTC)
    packed(*[StatusReport(f"{i:04}" + "🚗" * 200, noon, "x", None) for i in range(5000)])
    heads = db.copy_format._heads(5)
    assert sum(map(len, heads.values())) <= heads._ROOM
    tails = db.copy_format._Tails(7)
    for i in range(10_000):
        assert tails[f"kind-{i}", i, None] == tails[f"kind-{i}", i, None]
        assert tails["cars", 1, f'{{"i":{i}}}'].endswith(tails["cars", 1, None][-12:])
    assert len(tails) <= db.copy_format._MOST_TAILS
