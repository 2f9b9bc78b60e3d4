"""Answers as DataFrames: what they hold, of which types, and that they read only the days of their range."""

import inspect
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas
import pytest
from psycopg2.extensions import connection as Connection

from db import questions
from db.connection import Database
from db.tables import DETECTIONS, STATUS_HISTORY
from processing.errors import DatabaseUnavailable
from tests.db.loading import delivery, load, locked, sink_to
from tests.support import ROOT, VEHICLE, detections, event, query, report, statuses

LONG_AGO, FAR_AHEAD = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
ALWAYS = LONG_AGO, FAR_AHEAD
NINE = datetime(2022, 6, 5, 21, tzinfo=UTC)


def at(minute: int, status: str, vehicle: str = VEHICLE) -> dict[str, Any]:
    return {**report(0, status, vehicle), "report_time": f"2022-06-05T21:{minute:02}:00Z"}


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """Two vehicles: one has an accident at 21:12, the other at once."""
    with sink_to(database) as sink:
        load(sink, detections(event(0, ("cars", 1)), event(119, ("cars", 2), ("signs", 3)), event(120)))
        load(sink, detections(event(720, ("cars", 5)), event(700, ("cars", 7)), event(3599, ("cars", 1))))
        load(sink, statuses(at(0, "driving"), at(12, "accident"), at(1, "accident", "b"), {}))
        load(sink, statuses(at(0, "parking"), at(13, "parking", "b"), at(2, "driving", "c")))
    with closing(database.connect()) as connection:
        yield connection


def rows(frame: Any) -> list[tuple[Any, ...]]:
    """Its rows, with None where there is nothing."""
    return [tuple(None if pandas.isna(v) else v for v in row) for row in frame.itertuples(index=False)]


def types(frame: Any) -> dict[str, str]:
    return {name: str(type_) for name, type_ in frame.dtypes.items()}


TIME = "datetime64[us, UTC]"


def test_the_timeline_of_a_vehicle(connection: Connection) -> None:
    found = questions.vehicle_timeline(connection, VEHICLE, NINE, NINE + timedelta(minutes=2))
    assert [(row.at.isoformat(), row.what, row.value) for row in found.itertuples()][1:] == [
        ("2022-06-05T21:00:00.546000+00:00", "cars", 1),
        ("2022-06-05T21:01:59.546000+00:00", "cars", 2),
        ("2022-06-05T21:01:59.546000+00:00", "signs", 3),
    ]
    assert rows(found)[0][1:3] == ("driving", None)
    assert types(found) == {"at": TIME, "what": "category", "value": "Int32", "file_id": "int64"}
    assert list(found.what.cat.categories) == ["cars", "driving", "signs"]


def test_the_latest_status_of_a_vehicle(connection: Connection, database: Database) -> None:
    with sink_to(database) as sink:
        load(sink, statuses({**at(5, "driving", "d"), "km": 1.50}))
    found = questions.latest_status(connection, "d")
    (row,) = rows(found)
    assert row[:4] == ("d", pandas.Timestamp("2022-06-05T21:05Z"), "driving", '{"km": 1.5}')
    expected = {"vehicle_id": "str", "report_time": TIME, "status": "category", "extra": "str"}
    assert types(found) == {**expected, "file_id": "int64"}
    assert rows(questions.latest_status(connection, "c"))[0][3] is None
    assert types(questions.latest_status(connection, "nobody")) == types(found)


def test_vehicles_by_status(connection: Connection) -> None:
    found = questions.vehicles_by_status(connection)
    assert [row[:2] for row in rows(found)] == [("accident", 1), ("driving", 1), ("parking", 1)]
    assert types(found) == {"status": "category", "vehicles": "int64", "latest_report": TIME}


def test_detections_by_hour_of_all_and_of_one(connection: Connection, database: Database) -> None:
    with sink_to(database) as sink:
        load(sink, detections({**event(0, ("cars", 9), vehicle="b"), "detection_time": "2022-06-05T22:00Z"}))
    of_all = questions.detections_by_hour(connection, *ALWAYS)
    hours = pandas.Timestamp(NINE), pandas.Timestamp(NINE) + pandas.Timedelta("1h")
    expected = [(hours[0], "cars", 6, 18), (hours[0], "pedestrians", 1, 3), (hours[0], "signs", 1, 3)]
    assert rows(of_all) == [*expected, (hours[1], "cars", 1, 9)]
    of_one = questions.detections_by_hour(connection, *ALWAYS, VEHICLE)
    assert rows(of_one) == expected
    for found in of_all, of_one:
        assert types(found) == {
            "hour": TIME,
            "object_type": "category",
            "detections": "int64",
            "objects": "int64",
        }


@pytest.mark.parametrize("vehicle", [None, VEHICLE])
@pytest.mark.parametrize(
    ("since", "until", "count"),
    [
        (NINE, NINE + timedelta(microseconds=1), 3),
        (NINE + timedelta(microseconds=1), FAR_AHEAD, 0),
        (LONG_AGO, NINE, 0),
        (LONG_AGO, NINE + timedelta(minutes=30), 3),
        (NINE - timedelta(minutes=30), FAR_AHEAD, 3),
    ],
)
def test_an_hour_belongs_to_a_range_as_a_whole(
    connection: Connection, since: datetime, until: datetime, count: int, vehicle: str | None
) -> None:
    assert len(questions.detections_by_hour(connection, since, until, vehicle)) == count


def test_accidents_with_what_was_detected_before(connection: Connection) -> None:
    found = questions.accidents(connection, *ALWAYS, minutes=10)
    assert [(row[0], row[1].minute, *row[2:5]) for row in rows(found)] == [
        ("b", 1, None, None, None),
        (VEHICLE, 12, "cars", 2, 9),
        (VEHICLE, 12, "pedestrians", 1, 3),
    ]
    assert types(found) == {
        "vehicle_id": "str",
        "report_time": TIME,
        "object_type": "category",
        "detections": "Int64",
        "objects": "Int64",
        "last_seen": TIME,
    }
    longer = questions.accidents(connection, *ALWAYS, minutes=12)
    assert [row[2:5] for row in rows(longer)][1:] == [("cars", 4, 12), ("pedestrians", 1, 3), ("signs", 1, 3)]


def test_an_accident_just_after_midnight_is_told_with_the_evening_before(database: Database) -> None:
    with sink_to(database) as sink:
        before = {**event(0, ("cars", 1)), "detection_time": "2022-06-05T23:59:00Z"}
        load(sink, detections(before))
        load(sink, statuses({**report(0, "accident"), "report_time": "2022-06-06T00:01:00Z"}))
    with closing(database.connect()) as connection:
        found = questions.accidents(connection, datetime(2022, 6, 6, tzinfo=UTC), FAR_AHEAD)
        assert found.objects.tolist() == [1]
        assert len(questions.accidents(connection, LONG_AGO, datetime(2022, 6, 6, tzinfo=UTC))) == 0


def test_the_busiest_vehicles(connection: Connection, database: Database) -> None:
    with sink_to(database) as sink:
        load(sink, detections(*[event(0, ("cars", 1), vehicle=vehicle) for vehicle in "xyz"]))
    found = questions.busiest_vehicles(connection, *ALWAYS, limit=3)
    assert rows(found) == [(VEHICLE, 8, 24), ("x", 1, 1), ("y", 1, 1)]
    assert types(found) == {"vehicle_id": "str", "detections": "int64", "objects": "int64"}


def test_files_by_day(connection: Connection, database: Database) -> None:
    with sink_to(database) as sink:
        sink.record_failure(delivery(b"[]"), None, "bad")
    query(database.url, "UPDATE mobileye_data.ingested_files SET finished_at = '2022-06-05 23:00Z'")
    found = questions.files_by_day(connection, *ALWAYS)
    day = pandas.Timestamp("2022-06-05", tz="UTC")
    assert [(*row[:4], *row[5:]) for row in rows(found)] == [
        (day, "objects_detection", "loaded", 2, 8, 8, 0, 0),
        (day, "vehicles_status", "loaded", 2, 7, 5, 0, 2),
        (day, None, "failed", 1, 0, 0, 0, 0),
    ]
    assert found.bytes.min() == 2
    assert set(types(found).values()) == {TIME, "category", "int64"}
    assert len(questions.files_by_day(connection, LONG_AGO, datetime(2022, 6, 5, 23, tzinfo=UTC))) == 0


def test_rejects_by_reason(connection: Connection, database: Database) -> None:
    change = "UPDATE mobileye_data.rejected_records SET resolved_at = now() WHERE reason = 'invalid'"
    query(database.url, change)
    found = questions.rejects_by_reason(connection)
    assert [row[:4] for row in rows(found)] == [
        ("conflict", "vehicles_status", 1, 1),
        ("invalid", "vehicles_status", 1, 0),
    ]
    assert types(found) == {
        "reason": "category",
        "kind": "category",
        "records": "int64",
        "open": "int64",
        "latest": TIME,
    }


ASKED = {
    "vehicle_timeline": lambda connection: questions.vehicle_timeline(connection, "x", *ALWAYS),
    "latest_status": lambda connection: questions.latest_status(connection, "x"),
    "vehicles_by_status": questions.vehicles_by_status,
    "detections_by_hour": lambda connection: questions.detections_by_hour(connection, *ALWAYS),
    "detections_by_hour of one": lambda connection: questions.detections_by_hour(connection, *ALWAYS, "x"),
    "accidents": lambda connection: questions.accidents(connection, *ALWAYS),
    "busiest_vehicles": lambda connection: questions.busiest_vehicles(connection, *ALWAYS),
    "files_by_day": lambda connection: questions.files_by_day(connection, *ALWAYS),
    "rejects_by_reason": questions.rejects_by_reason,
}


def test_an_answer_is_the_same_however_it_is_read(
    connection: Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {name: ask(connection) for name, ask in ASKED.items()}
    with warnings.catch_warnings(action="error"), closing(database.connect(autocommit=True)) as other:
        for rows_of_chunk in (1, 2, 5):
            monkeypatch.setattr(questions, "_CHUNK_ROWS", rows_of_chunk)
            for name, ask in ASKED.items():
                pandas.testing.assert_frame_equal(ask(other), whole[name])


def test_an_empty_answer_has_the_same_types(connection: Connection, database: Database) -> None:
    full = {name: types(ask(connection)) for name, ask in ASKED.items()}
    tables = ("objects_detection_events", "vehicle_status_history", "vehicle_status", "detections_hourly")
    for table in (*tables, "ingested_files", "rejected_records"):
        query(database.url, f"DELETE FROM mobileye_data.{table}")
    for name, ask in ASKED.items():
        empty = ask(connection)
        assert (len(empty), types(empty)) == (0, full[name])


def test_the_widest_range_and_texts_that_are_no_sql(connection: Connection) -> None:
    assert len(questions.vehicle_timeline(connection, "'; DROP TABLE x; --", *ALWAYS)) == 0
    assert len(questions.vehicle_timeline(connection, VEHICLE, *ALWAYS)) == 10


def test_a_connection_that_was_lost_is_an_error_of_ours(connection: Connection, database: Database) -> None:
    ended = "SELECT pg_terminate_backend(%s, 5000)"
    query(database.url, ended, (connection.info.backend_pid,))
    with pytest.raises(DatabaseUnavailable):
        questions.vehicles_by_status(connection)


def test_without_pandas_one_sentence_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from db import questions\n"
        "try: questions.vehicles_by_status(None)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "Misconfigured pandas is missing: pip install -r requirements/lake.txt\n"


# Partitions --------------------------------------------------------------------------------------------

#: Questions of one day, whose range the planner can't know, and the tables that they read.
PRUNED = {
    "SELECT * FROM vehicle_timeline('x', {since}, {since} + interval '1 day')": (DETECTIONS, STATUS_HISTORY),
    "SELECT * FROM detections_by_hour({since}, {since} + interval '1 day', 'x')": (DETECTIONS,),
    "SELECT * FROM busiest_vehicles({since}, {since} + interval '1 day')": (DETECTIONS,),
    "SELECT * FROM accidents({since}, {since} + interval '1 day', 0)": (DETECTIONS, STATUS_HISTORY),
}


@pytest.fixture
def week(database: Database) -> Database:
    for table in (DETECTIONS, STATUS_HISTORY):
        days = "generate_series('2022-06-01'::date, '2022-06-07', '1 day') day"
        query(database.url, f"SELECT mobileye_data.add_partition('{table.name}', day::date) FROM {days}")
    return database


@pytest.mark.parametrize("question", PRUNED)
@pytest.mark.parametrize("is_prepared", [False, True], ids=["as it stands", "prepared"])
def test_only_the_days_of_the_range_are_planned_and_locked(
    week: Database, question: str, is_prepared: bool
) -> None:
    with closing(week.connect()) as connection, connection.cursor() as cursor:
        if is_prepared:
            cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            cursor.execute(f"PREPARE asked (timestamptz) AS {question.format(since='$1')}")
            cursor.execute("EXECUTE asked (timestamptz '2022-06-03Z' + interval '0 hours')")
        else:
            since = "(now() - (now() - timestamptz '2022-06-03Z'))"
            cursor.execute(question.format(since=since))
        for table in PRUNED[question]:
            assert locked(cursor, table) == ["20220603"]


# The page ----------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "questions.md").read_text()
EXAMPLES = re.findall(r"^```sql\n(.*?);\n```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_can_be_asked(database: Database, example: str) -> None:
    query(database.url, f"SET search_path = mobileye_data; {example}")


def test_the_page_shows_every_question() -> None:
    assert len(EXAMPLES) >= 9
    for name, function in inspect.getmembers(questions, inspect.isfunction):
        if function.__module__ == questions.__name__ and not name.startswith("_"):
            parameters = inspect.signature(function).parameters.values()
            shown = ", ".join(p.name + f"={p.default}" * (p.default is not p.empty) for p in parameters)
            assert f"`{name}({shown})`" in PAGE
