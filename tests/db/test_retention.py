"""Old days go, whoever reads and loads meanwhile, and the ledger adds up without them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta

import pytest
from psycopg2.extensions import cursor as Cursor

from db import recall, retention
from db.connection import Database
from db.partitions import bring_home
from db.tables import DETECTIONS, STATUS_HISTORY, Table
from processing.errors import Misconfigured
from service.events import DayDropped, Event
from service.upkeep import Upkeep
from tests.db.loading import count, flaws, load, sink_to
from tests.support import detections, event, query, report, statuses, until

DAYS = [date(2022, 6, day) for day in range(1, 6)]
FOURTH = DAYS[3]
OTHER = f"{DETECTIONS.full_name}_other"


def of_day(day: date, second: int = 0) -> dict[str, object]:
    return {**event(second), "detection_time": f"{day}T12:00:{second:02}Z"}


def status_of(day: date, status: str = "driving", vehicle: str = "v") -> dict[str, object]:
    return {**report(0, status, vehicle), "report_time": f"{day}T12:00:00Z"}


@pytest.fixture
def loaded(database: Database) -> Database:
    """Two files over five days, each with two rows a day of detections; and reports."""
    with sink_to(database) as sink:
        for second in range(2):
            load(sink, detections(*[of_day(day, second) for day in DAYS]))
        load(sink, statuses(*[status_of(day) for day in DAYS], status_of(DAYS[0], "parking", "old")))
    return database


@contextmanager
def session(database: Database, *, autocommit: bool = True) -> Iterator[Cursor]:
    with closing(database.connect(autocommit=autocommit)) as connection, connection.cursor() as cursor:
        yield cursor


def drop_before(database: Database, day: date, table: Table = DETECTIONS) -> list[int | None]:
    with session(database) as cursor:
        return [retention.drop_day(cursor, table, old) for old in retention.days_before(cursor, table, day)]


def days_left(database: Database, table: Table = DETECTIONS) -> list[date]:
    time = table.key[1]
    statement = f"SELECT DISTINCT ({time} AT TIME ZONE 'UTC')::date FROM {table.full_name} ORDER BY 1"
    return [day for (day,) in query(database.url, statement)]


def test_days_that_are_wholly_older_go_and_the_ledger_adds_up(loaded: Database) -> None:
    assert drop_before(loaded, FOURTH) == [4, 4, 4]
    assert drop_before(loaded, FOURTH, STATUS_HISTORY) == [2, 1, 1]
    assert days_left(loaded) == days_left(loaded, STATUS_HISTORY) == DAYS[3:]
    assert flaws(loaded) == []
    statement = "SELECT table_name, day, files, rows FROM mobileye_data.dropped_days ORDER BY 1, 2"
    assert query(loaded.url, statement)[:2] == [(DETECTIONS.name, day, 2, 4) for day in DAYS[:2]]
    assert drop_before(loaded, FOURTH) == []


def test_the_latest_status_stays(loaded: Database) -> None:
    drop_before(loaded, date(2030, 1, 1), STATUS_HISTORY)
    assert count(loaded, "vehicle_status") == 2 and count(loaded, "vehicle_status_history") == 0
    assert flaws(loaded) == []
    with sink_to(loaded) as sink:
        load(sink, statuses(status_of(date(2022, 7, 1), "parking")))
    assert flaws(loaded) == []
    query(loaded.url, "UPDATE mobileye_data.vehicle_status SET status = 'x' WHERE vehicle_id = 'v'")
    assert len(flaws(loaded)) == 1


def test_the_first_day_that_is_kept_follows_from_the_databases_clock(database: Database) -> None:
    with session(database) as cursor:
        expected = [(datetime.now(UTC) - timedelta(days=30)).date() for _ in range(2)]
        assert retention.first_day(cursor, 30) in {*expected, expected[0] + timedelta(1)}


def test_late_rows_of_a_dropped_day_are_loaded_and_dropped_again(loaded: Database) -> None:
    drop_before(loaded, FOURTH)
    with sink_to(loaded) as sink:
        load(sink, detections(of_day(DAYS[0], 0), of_day(DAYS[0], 9)))  # one of them was there before
    assert days_left(loaded) == [DAYS[0], *DAYS[3:]] and flaws(loaded) == []
    assert drop_before(loaded, FOURTH) == [4]
    assert flaws(loaded) == []
    assert query(loaded.url, "SELECT sum(rows) FROM mobileye_data.dropped_rows") == [(16,)]


def test_old_rows_of_other_go_too(loaded: Database) -> None:
    query(
        loaded.url,
        f"""
        INSERT INTO {DETECTIONS.full_name}
        SELECT 'x', '2022-01-01Z'::timestamptz + i * interval '1 min', 'cars', 1, NULL, 1
        FROM generate_series(1, 25000) i;
        UPDATE mobileye_data.ingested_files SET rows_inserted = rows_inserted + 25000,
            rows_read = rows_read + 25000 WHERE file_id = 1;
        INSERT INTO {DETECTIONS.full_name} VALUES ('x', '2030-01-01Z', 'cars', 1, NULL, 1);
        SELECT mobileye_data.recount_hours(day::date)
        FROM generate_series('2022-01-01'::date, '2022-01-20', '1 day') day
        """,
    )
    with session(loaded) as cursor:
        assert retention.other_rows(cursor) == [retention.OtherRows(DETECTIONS.name, 25_001, 19)]
        dropped = [retention.drop_strays(cursor, DETECTIONS, FOURTH) for _ in range(4)]
    assert dropped == [10_000, 10_000, 5_000, 0]
    query(loaded.url, f"DELETE FROM {DETECTIONS.full_name} WHERE detection_time > '2029-01-01'")
    assert flaws(loaded) == []


def test_a_day_whose_table_somebody_reads_is_left_with_its_rows(loaded: Database) -> None:
    with session(loaded, autocommit=False) as reader:
        reader.execute(f"SELECT FROM {DETECTIONS.full_name}")
        assert drop_before(loaded, DAYS[1]) == [None]
        assert flaws(loaded) == [] and count(loaded, "dropped_rows") == 0
    assert drop_before(loaded, DAYS[1]) == [4]


def test_a_load_that_is_under_way_keeps_the_day_and_no_lock_stays_behind(loaded: Database) -> None:
    """Loads of other days go on, and of that very day, too."""
    with sink_to(loaded) as sink, session(loaded, autocommit=False) as loading:
        loading.execute(f"LOCK TABLE ONLY {DETECTIONS.full_name} IN ROW EXCLUSIVE MODE")
        with session(loaded) as dropping:
            assert retention.drop_day(dropping, DETECTIONS, DAYS[0]) is None
            load(sink, detections(of_day(DAYS[4], 30), of_day(DAYS[0], 30)))
            loading.connection.rollback()
            assert retention.drop_day(dropping, DETECTIONS, DAYS[0]) == 6
    assert flaws(loaded) == []


def test_an_upkeep_tries_again_for_a_while(loaded: Database) -> None:
    events: list[Event] = []
    with session(loaded, autocommit=False) as reader, closing(loaded.connect(autocommit=True)) as connection:
        reader.execute(f"SELECT FROM {DETECTIONS.full_name}")

        def pause(_: float) -> bool:
            pauses.append(1)
            if len(pauses) == 3:
                reader.connection.rollback()
            return False

        pauses: list[int] = []
        assert Upkeep(connection, events.append, pause).drop_old(DAYS[1])
    assert DayDropped(DETECTIONS.name, str(DAYS[0]), 4) in events
    assert flaws(loaded) == []


def test_a_day_that_was_dropped_meanwhile_is_no_error(loaded: Database) -> None:
    with session(loaded) as cursor:
        assert retention.drop_day(cursor, DETECTIONS, date(2001, 1, 1)) == 0
        assert retention.drop_day(cursor, DETECTIONS, DAYS[0]) == 4
        assert retention.drop_day(cursor, DETECTIONS, DAYS[0]) == 0
    assert flaws(loaded) == []


def test_rows_that_come_and_go_before_a_day_is_dropped_are_noted(loaded: Database) -> None:
    with sink_to(loaded) as sink, session(loaded) as cursor:
        cursor.execute("SELECT mobileye_data.begin_drop(%s, %s)", (DETECTIONS.name, DAYS[0]))
        load(sink, detections(of_day(DAYS[0], 20), of_day(DAYS[1], 20)))
        with session(loaded, autocommit=False) as recalling:
            found = recall.find_id(recalling, 1)
            assert recall.take_out(recalling, 1, recall.find_days(recalling, found), "x")
            recalling.connection.commit()
        assert retention.drop_day(cursor, DETECTIONS, DAYS[0]) == 4
    assert flaws(loaded) == [] and count(loaded, "late_rows") == 0


#: Keeps whoever notes the rows of a day, when they are counted, until more have come.
SLOW_NOTES = """
    CREATE FUNCTION wait_for_late() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        FOR step IN 1..3000 LOOP
            EXIT WHEN EXISTS (SELECT FROM mobileye_data.late_rows)
                   OR EXISTS (SELECT FROM mobileye_data.dropped_rows);
            PERFORM pg_sleep(0.01);
        END LOOP;
        RETURN NULL;
    END $$;
    CREATE TRIGGER slow BEFORE INSERT ON mobileye_data.dropped_rows
        FOR EACH STATEMENT EXECUTE FUNCTION wait_for_late()
"""


def test_a_load_of_the_day_does_not_wait_while_its_rows_are_counted(loaded: Database) -> None:
    query(loaded.url, SLOW_NOTES)
    sleeping = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )
    with ThreadPoolExecutor() as threads, sink_to(loaded) as sink:
        dropping = threads.submit(drop_before, loaded, DAYS[1])
        until(lambda: query(loaded.url, sleeping))
        load(sink, detections(of_day(DAYS[0], 30), of_day(DAYS[4], 30)))
        assert dropping.result() == [6]
    assert days_left(loaded) == DAYS[1:] and flaws(loaded) == []


def test_days_go_while_files_of_these_days_come(loaded: Database) -> None:
    def come() -> None:
        with sink_to(loaded) as sink:
            for number in range(15):
                load(sink, detections(of_day(DAYS[number % 3], 10 + number), of_day(DAYS[4], 10 + number)))

    with ThreadPoolExecutor() as threads:
        coming = threads.submit(come)
        while not coming.done():
            drop_before(loaded, FOURTH)
        coming.result()
    drop_before(loaded, FOURTH)
    assert flaws(loaded) == []
    with session(loaded) as cursor:
        while retention.drop_strays(cursor, DETECTIONS, FOURTH):
            pass
        while bring_home(cursor, DETECTIONS):
            pass
    assert days_left(loaded) == DAYS[3:] and flaws(loaded) == []


def test_nobody_but_the_owner_may_drop_a_day(loaded: Database) -> None:
    query(loaded.url, "GRANT USAGE ON SCHEMA mobileye_data TO pg_monitor")
    with session(loaded) as cursor:
        cursor.execute("SET ROLE pg_monitor")
        for drop, name in ((retention.drop_day, "begin_drop"), (retention.drop_strays, "drop_strays")):
            with pytest.raises(Misconfigured, match=f"permission denied for function {name}"):
                drop(cursor, DETECTIONS, DAYS[0])
