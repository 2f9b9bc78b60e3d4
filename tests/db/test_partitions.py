"""Partitions that come about on demand, whatever other sessions do at the time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import date, timedelta

import pytest
from psycopg2.extensions import cursor as Cursor

import db.connection
from db.connection import Database
from db.partitions import Partitions
from db.tables import DETECTIONS, STATUS_HISTORY
from processing.errors import DatabaseUnavailable
from tests.db.loading import count, load, sink_to
from tests.support import detections, event, query, report, statuses

DAY = date(2022, 6, 5)
FOREIGN = """
    INSERT INTO mobileye_data.objects_detection_events
    VALUES ('x', '2022-06-05T12:00Z', 'cars', 1, NULL, 1)
    """


@pytest.fixture
def partitions(database: Database) -> Iterator[Partitions]:
    partitions = Partitions(database)
    yield partitions
    partitions.close()


@contextmanager
def other_session(database: Database, statement: str) -> Iterator[Cursor]:
    """That has run a statement and not ended its transaction."""
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        yield cursor


def made(database: Database, table: str = DETECTIONS.name) -> list[str]:
    statement = """
        SELECT inhrelid::regclass::text FROM pg_inherits
        WHERE inhparent = ('mobileye_data.' || %s)::regclass ORDER BY 1
        """
    return [
        name.removeprefix(f"mobileye_data.{table}_") for (name,) in query(database.url, statement, (table,))
    ]


def places(database: Database) -> dict[str, int]:
    """How many detections each partition holds."""
    statement = (
        "SELECT tableoid::regclass::text, count(*) FROM mobileye_data.objects_detection_events GROUP BY 1"
    )
    return {
        name.removeprefix(f"mobileye_data.{DETECTIONS.name}_"): n
        for name, n in query(database.url, statement)
    }


def at(time: str) -> bytes:
    return detections({**event(0, ("cars", 1)), "detection_time": time})


def test_each_day_of_a_table_gets_its_partition(database: Database, partitions: Partitions) -> None:
    partitions.ensure(DETECTIONS, {DAY, DAY + timedelta(1)})
    partitions.ensure(STATUS_HISTORY, {DAY})
    assert made(database) == ["20220605", "20220606", "other"]
    assert made(database, STATUS_HISTORY.name) == ["20220605", "other"]


@pytest.mark.parametrize(
    ("time", "day"),
    [
        ("2022-06-05T00:00:00Z", "20220605"),
        ("2022-06-05T23:59:59.999999Z", "20220605"),
        ("2022-06-06T01:00:00+02:00", "20220605"),
        ("2022-06-05T20:00:00-05:00", "20220606"),
        ("0001-01-01T00:00:00Z", "00010101"),
        ("9999-12-31T23:59:59.999999Z", "99991231"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_a_row_goes_to_the_partition_of_its_utc_day(
    database: Database, time: str, day: str, zone: str
) -> None:
    query(database.url, f"ALTER DATABASE {name_of(database)} SET timezone = '{zone}'")
    with sink_to(database) as sink:
        load(sink, at(time))
    assert places(database) == {day: 1}


def name_of(database: Database) -> str:
    return str(query(database.url, "SELECT current_database()")[0][0])


@pytest.mark.parametrize("time", ["2022-06-05T00:00:00Z", "2022-06-05T23:59:59.999999Z"])
def test_a_day_is_one_of_utc_whoever_makes_its_partition(database: Database, time: str) -> None:
    session = "SET timezone = 'America/New_York'; SET datestyle = 'SQL, DMY'"
    query(database.url, f"{session}; SELECT mobileye_data.add_partition('{DETECTIONS.name}', '05/06/2022')")
    with sink_to(database) as sink:
        load(sink, at(time))
    assert places(database) == {"20220605": 1}


def test_a_partition_has_the_keys_and_indexes_of_its_table(
    database: Database, partitions: Partitions
) -> None:
    partitions.ensure(DETECTIONS, {DAY})
    statement = "SELECT indexdef FROM pg_indexes WHERE tablename = %s"
    found = [
        row[0].partition(" USING ")[2]
        for row in query(database.url, statement, (f"{DETECTIONS.name}_20220605",))
    ]
    assert sorted(found) == [
        "brin (detection_time) WITH (autosummarize='on')",
        "btree (vehicle_id, detection_time, object_type)",
    ]


def test_rows_of_a_day_that_has_rows_among_the_others_stay_together(
    database: Database, partitions: Partitions
) -> None:
    query(
        database.url,
        FOREIGN,
    )
    with sink_to(database) as sink:
        load(sink, at("2022-06-05T13:00:00Z"))
    assert places(database) == {"other": 2}


def test_a_lock_that_is_not_to_be_had_sends_the_rows_to_the_others(database: Database) -> None:
    with (
        other_session(database, "SELECT FROM mobileye_data.objects_detection_events"),
        sink_to(database) as sink,
    ):
        load(sink, at("2022-06-05T13:00:00Z"))
    assert places(database) == {"other": 1}


def test_open_transactions_on_the_table_do_not_stop_the_loading(database: Database) -> None:
    foreign = f"{FOREIGN}; SELECT FROM mobileye_data.objects_detection_events"
    with sink_to(database) as sink:
        load(sink, at("2022-06-05T13:00:00Z"))
        with other_session(database, foreign):
            load(sink, at("2022-06-05T14:00:00Z"), at("2022-06-06T14:00:00Z"))
    assert places(database) == {"20220605": 2, "other": 1}


LOCKED = {
    "LOCK TABLE mobileye_data.objects_detection_events_20220604 IN ACCESS EXCLUSIVE MODE": "20220605",
    "SELECT pg_advisory_xact_lock(hashtext('mobileye_data.objects_detection_events'))": "other",
}


@pytest.mark.parametrize("held", LOCKED)
def test_a_lock_that_concerns_other_days_is_not_waited_for_for_ever(
    database: Database, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    monkeypatch.setitem(db.connection._SESSION, "lock_timeout", "'200ms'")
    Partitions(database).ensure(DETECTIONS, {date(2022, 6, 4)})
    with sink_to(database) as sink, other_session(database, held):
        load(sink, at("2022-06-05T13:00:00Z"))
    assert places(database) == {LOCKED[held]: 1}


def test_a_table_that_is_never_given_back_ends_in_an_error(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(db.connection._SESSION, "lock_timeout", "'200ms'")
    held = "LOCK TABLE mobileye_data.objects_detection_events IN ACCESS EXCLUSIVE MODE"
    with sink_to(database) as sink:
        with other_session(database, held), pytest.raises(DatabaseUnavailable, match="lock timeout"):
            load(sink, at("2022-06-05T13:00:00Z"))
        load(sink, at("2022-06-05T13:00:00Z"))
    assert places(database) == {"20220605": 1}


def test_many_processes_may_ask_for_the_same_days_at_once(database: Database) -> None:
    days = {DAY + timedelta(i) for i in range(20)}

    def ensure(_: int) -> None:
        partitions = Partitions(database)
        partitions.ensure(DETECTIONS, days)
        partitions.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ensure, range(4)))
    assert made(database) == [*sorted(f"{day:%Y%m%d}" for day in days), "other"]


def allow(database: Database, days: int) -> None:
    """So many days of a table may have their partition."""
    ((definition,),) = query(
        database.url, "SELECT pg_get_functiondef('mobileye_data.most_days()'::regprocedure)"
    )
    assert definition.count("1500") == 1
    query(database.url, definition.replace("1500", str(days)))


def test_beyond_its_limit_a_table_gets_no_more_partitions(database: Database, partitions: Partitions) -> None:
    allow(database, 3)
    partitions.ensure(DETECTIONS, {DAY + timedelta(i) for i in range(5)})
    assert made(database) == ["20220605", "20220606", "20220607", "other"]
    with sink_to(database) as sink:
        load(sink, at("2022-06-09T13:00:00Z"))
    assert places(database) == {"other": 1}


@pytest.mark.parametrize(
    "drop", ["DROP TABLE {}", "ALTER TABLE mobileye_data.objects_detection_events DETACH PARTITION {}"]
)
def test_a_partition_that_was_dropped_is_made_again(database: Database, drop: str) -> None:
    partition = "mobileye_data.objects_detection_events_20220605"
    with sink_to(database) as sink:
        load(sink, at("2022-06-05T13:00:00Z"))
        query(database.url, drop.format(partition))
        query(database.url, f"DROP TABLE IF EXISTS {partition}")
        load(sink, at("2022-06-05T14:00:00Z"))
    assert places(database) == {"20220605": 1}


def test_a_known_day_costs_no_question(database: Database, partitions: Partitions) -> None:
    partitions.ensure(DETECTIONS, {DAY})
    partitions.close()
    partitions._database = Database("host=nowhere.invalid")
    partitions.ensure(DETECTIONS, {DAY})
    partitions.forget()
    with pytest.raises(DatabaseUnavailable):
        partitions.ensure(DETECTIONS, {DAY})


def test_a_partition_stays_when_the_rows_for_it_do_not_come(database: Database) -> None:
    with sink_to(database) as sink, sink.transaction() as transaction:
        transaction._writer._partitions.ensure(STATUS_HISTORY, {DAY})
    with sink_to(database) as sink:
        load(sink, statuses(report()))
    assert made(database, STATUS_HISTORY.name) == ["20220505", "20220605", "other"]
    assert count(database, "vehicle_status_history") == 1
