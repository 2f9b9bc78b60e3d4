"""Partitions that come about on demand, whatever other sessions do at the time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import date, timedelta

import pytest
from psycopg2.extensions import cursor as Cursor

import db.chunk
import db.connection
import db.partitions
from db.connection import Database
from db.partitions import Partitions
from db.tables import DETECTIONS, STATUS_HISTORY
from processing.errors import DatabaseUnavailable
from processing.sink import Counts
from tests.db.loading import count, load, locked, sink_to, write
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


# Other days ------------------------------------------------------------------------------------------


def days_of(day: int, vehicles: int = 5) -> list[tuple[date, str]]:
    return [(DAY + timedelta(day), f"car-{i}") for i in range(vehicles)]


def both_kinds(keys: list[tuple[date, str]]) -> tuple[bytes, bytes]:
    found = [{**event(0, ("cars", 1), vehicle=v), "detection_time": f"{day}T12:00:00Z"} for day, v in keys]
    reported = [{**report(vehicle=v), "report_time": f"{day}T12:00:00Z"} for day, v in keys]
    return detections(*found), statuses(*reported)


def test_the_days_of_cumulative_exports_end_in_their_own_partitions(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds all earlier days again and a new one, more than a chunk of rows and not of each weekday."""
    monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 7)
    days = [day for day in range(14) if day % 7 < 5]
    with sink_to(database) as sink:
        for until_then in range(1, len(days) + 1):
            load(sink, *both_kinds([key for day in days[:until_then] for key in days_of(day)]))
    assert places(database) == {f"{DAY + timedelta(day):%Y%m%d}": 5 for day in days}
    assert made(database, STATUS_HISTORY.name) == [
        *(f"{DAY + timedelta(day):%Y%m%d}" for day in days),
        "other",
    ]


def test_rows_that_exist_on_two_days_lock_no_other_days(database: Database, partitions: Partitions) -> None:
    partitions.ensure(DETECTIONS, {DAY + timedelta(day) for day in (0, 1, 2, 299, 300)})
    content, _ = both_kinds(days_of(0) + days_of(300))
    with sink_to(database) as sink:
        load(sink, content)
        with sink.transaction() as transaction:
            write(transaction, content + b" ")
            assert [counts.duplicate for counts in transaction.finish()] == [10]
            assert locked(transaction.cursor, DETECTIONS) == ["20220605", "20230401"]


def count_tries(database: Database) -> None:
    """From now on each call of add_partition is a row of tries."""
    query(
        database.url,
        """
        CREATE TABLE mobileye_data.tries (day date);
        ALTER FUNCTION mobileye_data.add_partition RENAME TO really_add_partition;
        CREATE FUNCTION mobileye_data.add_partition(parent text, day date) RETURNS boolean LANGUAGE plpgsql AS
        'BEGIN
            INSERT INTO mobileye_data.tries VALUES (day);
            RETURN mobileye_data.really_add_partition(parent, day);
        END'
        """,
    )


READERS = {
    "a report": "SELECT count(*) FROM mobileye_data.objects_detection_events",
    "a dump": "LOCK TABLE mobileye_data.objects_detection_events_other IN ACCESS SHARE MODE",
}


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_costs_the_files_of_new_days_one_wait(database: Database, reader: str) -> None:
    count_tries(database)
    with sink_to(database) as sink:
        with other_session(database, READERS[reader]):
            for day in range(5):
                load(sink, both_kinds(days_of(day))[0])
                load(sink, both_kinds(days_of(day, 7)[5:])[0])
        assert places(database) == {"other": 35}
        assert count(database, "tries") == 1


def test_a_day_that_has_rows_among_the_others_is_asked_for_once_and_not_waited_for(
    database: Database,
) -> None:
    query(database.url, FOREIGN)
    count_tries(database)
    with sink_to(database) as sink, other_session(database, READERS["a report"]):
        for second in range(5):
            load(sink, at(f"2022-06-05T13:00:0{second}Z"))
        assert count(database, "tries") == 1
        load(sink, at("2022-06-06T13:00:00Z"))
        assert count(database, "tries") == 2, "the first was no lock that is not to be had"
    assert places(database) == {"other": 7}


def test_a_day_that_was_refused_is_asked_for_again_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.partitions, "REFUSED_SECONDS", 0.0)
    monkeypatch.setattr(db.partitions, "LOCKED_SECONDS", 0.0)
    query(database.url, FOREIGN)
    with sink_to(database) as sink:
        with other_session(database, READERS["a report"]):
            load(sink, at("2022-06-05T13:00:00Z"), at("2022-06-06T13:00:00Z"))
        query(database.url, f"DELETE FROM mobileye_data.{DETECTIONS.name}")
        load(sink, at("2022-06-05T14:00:00Z"), at("2022-06-06T14:00:00Z"))
    assert places(database) == {"20220605": 1, "20220606": 1}


def test_no_more_than_some_refused_days_are_remembered(
    database: Database, partitions: Partitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.partitions, "_MOST_REFUSED", 3)
    days = {DAY + timedelta(day) for day in range(8)}
    with sink_to(database) as sink, other_session(database, READERS["a report"]):
        load(sink, both_kinds([key for day in range(8) for key in days_of(day)])[0])
    partitions.ensure(DETECTIONS, days)
    assert 0 < len(partitions._refused) <= 3
    assert made(database) == ["other"]


@pytest.mark.usefixtures("small_chunks")
def test_thousands_of_days_are_not_asked_for_one_by_one(database: Database) -> None:
    allow(database, 20)
    count_tries(database)
    keys = [(DAY + timedelta(2 * day), "car") for day in range(12_000)]
    content = both_kinds(keys)[1]
    with sink_to(database) as sink:
        assert load(sink, content) == [Counts(12_000, 12_000, 0, 0)]
        assert load(sink, content + b" ") == [Counts(12_000, 0, 12_000, 0)]
    assert count(database, "tries") == 20 + 4, "and once a chunk, whether there is room again"
    assert len(made(database, STATUS_HISTORY.name)) == 21


# All at once -----------------------------------------------------------------------------------------


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
    """This many days of a table may have their partition."""
    ((definition,),) = query(
        database.url, "SELECT pg_get_functiondef('mobileye_data.most_days(bigint)'::regprocedure)"
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
