"""Rows of the "other" partition that move to one of their own, whoever reads and writes them meanwhile."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import date

import pytest
from psycopg2.extensions import cursor as Cursor

import db.partitions
from db import schema
from db.connection import Database
from db.partitions import bring_home
from db.tables import DETECTIONS, STATUS_HISTORY, Table
from processing.errors import TryAgain
from processing.sink import Counts
from tests.db.loading import count, load, sink_to, write
from tests.support import Server, detections, event, query, report, statuses, until

DAY = date(2022, 6, 5)
FIVE = detections(*[event(second, ("cars", 1)) for second in range(5)])
OTHER = "objects_detection_events_other"
COUNT = "SELECT count(*) FROM mobileye_data.objects_detection_events"


@contextmanager
def session(database: Database, *, autocommit: bool = False) -> Iterator[Cursor]:
    with closing(database.connect(autocommit=autocommit)) as connection, connection.cursor() as cursor:
        yield cursor


@pytest.fixture
def strange(database: Database) -> Database:
    """With the five rows of a day among the others."""
    with session(database) as reader, sink_to(database) as sink:
        reader.execute(COUNT)
        load(sink, FIVE)
    assert places(database) == {"other": 5}
    return database


def places(database: Database, table: Table = DETECTIONS) -> dict[str, int]:
    found = query(
        database.url, f"SELECT tableoid::regclass::text, count(*) FROM {table.full_name} GROUP BY 1"
    )
    return {name.removeprefix(f"{table.full_name}_"): n for name, n in found}


def move(database: Database, table: Table = DETECTIONS) -> list[date]:
    """Takes steps until nothing is left or somebody is in the way; gives the days that were moved."""
    days: list[date] = []
    with session(database, autocommit=True) as cursor:
        while (step := bring_home(cursor, table)) and not step.is_held_up:
            days += step.days
    return days


def finish(mover: Cursor) -> None:
    """Takes all steps; the last one is not committed."""
    while (step := bring_home(mover, DETECTIONS)) and not step.days:
        assert not step.is_held_up
        mover.connection.commit()
    assert step and step.days == [DAY]


def is_waiting(database: Database) -> bool:
    statement = """
        SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
        """
    return query(database.url, statement) != []


def test_a_day_is_moved_with_all_that_its_rows_hold(strange: Database) -> None:
    before = query(strange.url, f"SELECT * FROM {DETECTIONS.full_name} ORDER BY 1, 2, 3")
    assert move(strange) == [DAY]
    assert places(strange) == {"20220605": 5}
    assert query(strange.url, f"SELECT * FROM {DETECTIONS.full_name} ORDER BY 1, 2, 3") == before
    assert move(strange) == []


def test_a_move_leaves_the_tables_as_they_are_without_one(strange: Database, server: Server) -> None:
    move(strange)
    with server.database() as fresh, sink_to(fresh) as sink:
        with closing(fresh.connect()) as connection:
            schema.apply(connection)
        load(sink, FIVE)
        assert catalog(fresh) == catalog(strange)


def catalog(database: Database) -> list[tuple[object, ...]]:
    return query(
        database.url,
        """
        SELECT 'index', tablename, replace(indexdef, 'ONLY ', '') FROM pg_indexes
        WHERE schemaname = 'mobileye_data'
        UNION ALL
        SELECT 'constraint', conrelid::regclass::text, conname || ' ' || pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'mobileye_data'::regnamespace
        UNION ALL
        SELECT 'partition', relname, pg_get_expr(relpartbound, oid) FROM pg_class
        WHERE relnamespace = 'mobileye_data'::regnamespace
        UNION ALL
        SELECT 'function', proname, '' FROM pg_proc WHERE pronamespace = 'mobileye_data'::regnamespace
        UNION ALL
        SELECT 'trigger', tgrelid::regclass::text, tgname FROM pg_trigger
        ORDER BY 1, 2, 3
        """,
    )


@pytest.mark.parametrize("time_", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_any_day_can_be_moved_of_any_table(database: Database, time_: str) -> None:
    query(database.url, f"INSERT INTO {STATUS_HISTORY.full_name} VALUES ('x', '{time_}', 'y', NULL, 1)")
    query(database.url, f"INSERT INTO {STATUS_HISTORY.full_name} VALUES ('x', 'infinity', 'y', NULL, 1)")
    day = date.fromisoformat(time_[:10])
    assert move(database, STATUS_HISTORY) == [day]
    assert places(database, STATUS_HISTORY) == {time_[:10].replace("-", ""): 1, "other": 1}
    assert move(database, STATUS_HISTORY) == []


def test_some_days_are_moved_at_a_time_those_with_the_most_rows_first(database: Database) -> None:
    values = ", ".join(f"('x{n}', '2022-06-{day:02}Z', 'cars', 1, NULL, 1)"
                       for day in range(1, 13) for n in range(1 + (day > 2)))  # fmt: skip
    query(database.url, f"INSERT INTO {DETECTIONS.full_name} VALUES {values}")
    assert move(database) == [date(2022, 6, day) for day in (*range(3, 13), 1, 2)]
    assert "other" not in places(database)


def test_without_room_for_a_partition_all_stay(strange: Database) -> None:
    definition = "SELECT pg_get_functiondef('mobileye_data.most_days(bigint)'::regprocedure)"
    ((text,),) = query(strange.url, definition)
    query(strange.url, text.replace("1500", "0"))
    assert move(strange) == []
    assert places(strange) == {"other": 5}


def test_a_day_whose_partition_somebody_took_out_stays(strange: Database) -> None:
    query(strange.url, "CREATE TABLE mobileye_data.objects_detection_events_20220605 ()")
    assert move(strange) == []
    assert places(strange) == {"other": 5}


HELD = {
    "a reader": COUNT,
    "who makes a partition": f"SELECT pg_advisory_xact_lock(hashtext('{DETECTIONS.full_name}'))",
    "a vacuum": f"LOCK TABLE mobileye_data.{OTHER} IN SHARE UPDATE EXCLUSIVE MODE",
}


@pytest.mark.parametrize("held", HELD)
def test_it_is_held_up_while_somebody_is_at_work(strange: Database, held: str) -> None:
    with session(strange) as other:
        other.execute(HELD[held])
        assert move(strange) == []
        assert not is_waiting(strange)
        assert places(strange) == {"other": 5}
    assert move(strange) == [DAY]


def test_rows_that_are_not_committed_yet_are_waited_for_and_moved(strange: Database) -> None:
    more = detections(event(9, ("cars", 1)))
    with session(strange) as reader, sink_to(strange) as sink, sink.transaction() as loading:
        reader.execute(COUNT)
        write(loading, more)
        loading.finish()
        reader.connection.rollback()
        assert move(strange) == []
        loading.commit()
    assert move(strange) == [DAY]
    assert places(strange) == {"20220605": 6}


def test_who_reads_while_rows_move_sees_each_once(strange: Database) -> None:
    """It has begun before they have moved, and goes on when they have."""
    with session(strange) as mover, ThreadPoolExecutor() as threads:
        finish(mover)
        reads = [threads.submit(query, strange.url, COUNT) for _ in range(3)]
        until(lambda: is_waiting(strange))
        mover.connection.commit()
        assert [read.result(20) for read in reads] == [[(5,)]] * 3


def test_a_move_waits_for_who_reads_by_a_snapshot_older_than_the_copies(strange: Database) -> None:
    with closing(strange.connect()) as connection, connection.cursor() as reader:
        connection.set_session(isolation_level="REPEATABLE READ")
        reader.execute("SELECT count(*) FROM mobileye_data.ingested_files")
        assert move(strange) == []
        reader.execute(COUNT)
        assert reader.fetchall() == [(5,)]
    assert move(strange) == [DAY]


def test_who_loads_the_same_rows_while_they_move_finds_duplicates(strange: Database) -> None:
    again = detections(*[event(second, ("cars", 1)) for second in (3, 4, 5)], event(2, ("cars", 9)))
    with sink_to(strange) as sink, session(strange) as mover, ThreadPoolExecutor() as threads:
        finish(mover)
        late = threads.submit(load, sink, again)
        until(lambda: is_waiting(strange))
        mover.connection.commit()
        assert late.result(20) == [Counts(4, 1, 2, 1, conflict=1)]
    assert places(strange) == {"20220605": 6}


@pytest.fixture
def many(strange: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """With so many rows that they are copied in several steps."""
    monkeypatch.setattr(db.partitions, "_STEP_BLOCKS", 3)
    query(
        strange.url,
        f"""
        INSERT INTO {DETECTIONS.full_name}
        SELECT 'x', '2022-06-05Z'::timestamptz + i * interval '1s', 'cars', 1, NULL, 1
        FROM generate_series(1, 995) i
        """,
    )
    return strange


def test_nobody_waits_while_rows_are_copied(many: Database) -> None:
    """Neither who reads nor who loads rows of that very day."""
    with session(many) as mover, sink_to(many) as sink:
        for number in range(4):
            step = bring_home(mover, DETECTIONS)
            assert step and not step.is_held_up
            if number:  # the first one locks "other" for an instant
                load(sink, detections(event(10 + number, ("cars", 1))))
                assert query(many.url, COUNT) == [(1000 + number,)]
            mover.connection.commit()
    assert move(many) == [DAY]
    assert places(many) == {"20220605": 1003}


def test_whatever_is_loaded_or_taken_out_between_two_steps_by_changing_movers_is_there_once(
    many: Database,
) -> None:
    expected, n = 1000, 0
    with sink_to(many) as sink:
        while query(many.url, f"SELECT 1 FROM mobileye_data.{OTHER} LIMIT 1"):
            with session(many, autocommit=True) as mover:  # the one before may have been killed
                step = bring_home(mover, DETECTIONS)
            assert step and not step.is_held_up
            assert query(many.url, COUNT) == [(expected,)]
            load(sink, detections(event(20 + n, ("cars", 1))))
            expected += 1
            if n in (1, 4, 8):
                query(
                    many.url,
                    f"DELETE FROM {DETECTIONS.full_name} WHERE detection_time < '2022-06-05 00:0{n}'",
                )
                ((expected,),) = query(many.url, COUNT)
            n += 1
    assert n > 10
    assert places(many) == {"20220605": expected}
    assert query(many.url, "SELECT FROM mobileye_data.moves") == []


@pytest.mark.parametrize("change", ["VACUUM FULL", "TRUNCATE"])
def test_a_move_begins_again_if_the_rows_are_not_where_they_were(many: Database, change: str) -> None:
    with session(many, autocommit=True) as mover:
        for _ in range(3):
            bring_home(mover, DETECTIONS)
        query(many.url, f"DELETE FROM {DETECTIONS.full_name} WHERE detection_time < '2022-06-05 00:04'")
        for _ in range(4):
            bring_home(mover, DETECTIONS)
    query(many.url, f"{change} mobileye_data.{OTHER}")
    ((expected,),) = query(many.url, COUNT)
    move(many)
    assert sum(places(many).values()) == expected


@pytest.mark.parametrize("change", ["ADD COLUMN more text", "ADD CONSTRAINT mine CHECK (object_value < 100)"])
def test_a_move_begins_again_if_the_table_is_another_one(many: Database, change: str) -> None:
    with session(many, autocommit=True) as mover:
        for _ in range(3):
            bring_home(mover, DETECTIONS)
    query(many.url, f"ALTER TABLE {DETECTIONS.full_name} {change}")
    assert move(many) == [DAY]
    assert places(many) == {"20220605": 1000}


def test_an_upgrade_ends_a_move(many: Database) -> None:
    with session(many, autocommit=True) as mover:
        for _ in range(3):
            bring_home(mover, DETECTIONS)
    before = catalog(many)
    with closing(many.connect()) as connection:
        schema.apply(connection, again=True)
    assert len(catalog(many)) < len(before)
    assert move(many) == [DAY]


def test_rows_that_are_all_gone_leave_nothing_of_a_move(many: Database) -> None:
    before = catalog(many)
    with session(many, autocommit=True) as mover:
        bring_home(mover, DETECTIONS)
    assert catalog(many) != before
    query(many.url, f"DELETE FROM {DETECTIONS.full_name}")
    assert move(many) == []
    assert catalog(many) == before


def test_two_may_move_at_once(many: Database) -> None:
    with ThreadPoolExecutor() as threads:
        movers = [threads.submit(move, many) for _ in range(2)]
        moved = [day for mover in movers for day in mover.result(20)]
    assert [*moved, *move(many)] == [DAY]
    assert places(many) == {"20220605": 1000}


def test_days_move_beside_loads_and_readers_and_every_row_is_there_once(database: Database) -> None:
    """Two sinks load overlapping files of days that have rows among the others, in opposite orders."""
    days = [f"2022-06-{day:02}" for day in range(1, 9)]
    values = ", ".join(f"('x', '{day}Z', 'cars', 1, NULL, 0)" for day in days)
    query(database.url, f"INSERT INTO {DETECTIONS.full_name} VALUES {values}")
    files = [
        detections(*[{**event(0, ("cars", 1), vehicle=f"v{i + j}"), "detection_time": f"{day}T12:00:00Z"}
                     for j in range(4)])
        for i in range(20) for day in days
    ]  # fmt: skip
    with ThreadPoolExecutor() as threads:
        loads = [threads.submit(load_all, database, files[::order]) for order in (1, -1)]
        reader = threads.submit(counts_until, database, loads)
        moved: set[date] = set()
        while not all(load.done() for load in loads):
            moved |= {*move(database)}
            time.sleep(0.01)
        inserted = sum(load.result() for load in loads)
        seen = reader.result()
    moved |= {*move(database)}
    assert len(moved) == 8
    assert inserted == 8 * 23 and places(database) == {day.replace("-", ""): 24 for day in days}
    assert seen == sorted(seen), "rows were missing for a while"


def load_all(database: Database, files: list[bytes]) -> int:
    """How many rows were inserted."""
    inserted = 0
    with sink_to(database) as sink:
        for number, content in enumerate(files):
            while True:
                try:
                    # Bytes that no other sink has: what counts here are the rows.
                    inserted += load(sink, content + b" " * (1 + id(sink) % 997) + b"\n" * number)[0].inserted
                    break
                except TryAgain:
                    continue
    return inserted


def counts_until(database: Database, loads: Sequence[Future[int]]) -> list[int]:
    seen = []
    with session(database, autocommit=True) as cursor:
        while not all(load.done() for load in loads):
            cursor.execute(COUNT)
            ((n,),) = cursor.fetchall()
            seen.append(n)
    return seen


def test_a_move_counts_no_row_of_the_history_twice(database: Database) -> None:
    with session(database) as reader, sink_to(database) as sink:
        reader.execute(f"SELECT FROM {STATUS_HISTORY.full_name}")
        load(sink, statuses(report(1), report(2)))
    assert move(database, STATUS_HISTORY) == [date(2022, 5, 5)]
    with sink_to(database) as sink:
        assert load(sink, statuses(report(2), report(3))) == [Counts(2, 1, 1, 0)]
    assert places(database, STATUS_HISTORY) == {"20220505": 3}
    assert count(database, "vehicle_status") == 1
