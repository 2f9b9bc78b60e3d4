"""The counts by hour are those of the rows, whatever becomes of files, transactions and partitions."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import pytest

import db.chunk
import db.hourly_counts
from commands import replay
from config import Settings, load_settings
from db import audit, retention, schema
from db.connection import Database
from db.dry_run import DryRunSink
from db.partitions import bring_home
from db.recall import take_out
from db.sink import PostgresSink
from db.tables import DETECTIONS
from tests.db.loading import load, sink_to, write
from tests.support import ROOT, detections, event, query, report, statuses, until

TABLE = DETECTIONS.full_name
HOURLY = "mobileye_data.detections_hourly"
TIMES = [f"2022-06-0{day}T{hour}:59:5{second}.9Z" for day in (5, 6) for hour in (22, 23) for second in (8, 9)]


def flaws(database: Database) -> list[str]:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        return list(audit.wrong_hours(cursor))


def counted(database: Database) -> list[tuple[Any, ...]]:
    columns = "to_char(hour AT TIME ZONE 'UTC', 'DD HH24'), object_type, detections, objects"
    return query(database.url, f"SELECT {columns} FROM {HOURLY} ORDER BY 1, 2")


def at(time: str, *found: Any, **more: Any) -> dict[str, Any]:
    return {**event(0, *found, **more), "detection_time": time}


@pytest.fixture
def sink(database: Database) -> Iterator[PostgresSink]:
    with sink_to(database) as sink:
        yield sink


def test_detections_are_counted_in_the_hour_in_which_they_were_made(
    database: Database, sink: PostgresSink
) -> None:
    times = ["2022-06-05T21:59:59.999999Z", "2022-06-06T00:00:00+02:00", "1969-12-31T23:30:00-05:30"]
    load(sink, detections(*[at(time, ("cars", 1), ("signs", 20)) for time in times]))
    load(sink, detections(at("2022-06-05T21:00Z", ("cars", -5)), at("2022-06-05T21:01Z")))
    assert counted(database) == [
        ("01 05", "cars", 1, 1),
        ("01 05", "signs", 1, 20),
        ("05 21", "cars", 3, -2),
        ("05 21", "pedestrians", 1, 3),
        ("05 21", "signs", 1, 20),
        ("05 22", "cars", 1, 1),
        ("05 22", "signs", 1, 20),
    ]
    assert flaws(database) == []


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_any_hour_type_and_value_can_be_counted(database: Database, sink: PostgresSink, time: str) -> None:
    types = ["ü" * 255, '"\\', " "]
    load(sink, detections(*[at(time, (name, -(2**31)), (name + "x", 2**31 - 1)) for name in types[1:]]))
    load(sink, detections(at(time, (types[0], 2**31 - 1), vehicle="v")))
    assert flaws(database) == []
    assert len(counted(database)) == 5


def test_reports_are_not_counted(database: Database, sink: PostgresSink) -> None:
    load(sink, statuses(report(1), report(2)))
    assert counted(database) == []


def test_duplicates_conflicts_and_repeated_rows_of_a_file_are_not_counted(
    database: Database, sink: PostgresSink
) -> None:
    load(sink, detections(event(1, ("cars", 1)), event(1, ("cars", 1)), event(1, ("cars", 2)), event(2)))
    once = counted(database)
    load(sink, detections(event(1, ("cars", 1)), event(1, ("cars", 3)), event(2)))
    assert once == counted(database)
    assert flaws(database) == []


def test_what_is_rolled_back_is_not_counted(database: Database, sink: PostgresSink) -> None:
    with sink.transaction() as transaction:
        write(transaction, detections(event(1)))
        transaction.prepare()
    assert counted(database) == []


def test_a_file_of_very_many_hours_locks_none_of_them_before_its_end(
    database: Database, sink: PostgresSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.hourly_counts, "_MOST", 3)
    monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 2)
    load(sink, detections(event(0)))
    with sink.transaction() as transaction:
        write(transaction, detections(*[at(time) for time in TIMES], *[event(i) for i in range(1, 8)]))
        transaction.finish()
        with sink_to(database) as other:
            load(other, detections(event(60)))
        transaction.commit()
    assert flaws(database) == []
    assert ("05 21", "cars", 9, 18) in counted(database)


def test_two_that_add_to_the_same_hours_wait_for_each_other_in_the_same_order(database: Database) -> None:
    files = [
        [detections(*[at(t, vehicle=f"{n}-{i}") for t in TIMES[:: 1 - 2 * n]]) for i in range(20)]
        for n in (0, 1)
    ]

    def load_all(contents: list[bytes]) -> None:
        with sink_to(database) as sink:
            for content in contents:
                load(sink, content)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(load_all, files))
    assert flaws(database) == []
    assert sum(row[2] for row in counted(database)) == 2 * 20 * 2 * len(TIMES)


def test_the_counts_are_locked_for_the_commit_alone(database: Database, sink: PostgresSink) -> None:
    """A transaction that waits for a lock of another kind keeps nobody from the hours."""
    load(sink, detections(event(0)))
    with closing(database.connect()) as holder, holder.cursor() as cursor, ThreadPoolExecutor(1) as thread:
        cursor.execute("LOCK TABLE mobileye_data.ingested_files IN SHARE MODE")
        loading = thread.submit(load, sink, detections(event(1)))
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        until(lambda: query(database.url, waiting))
        query(database.url, f"SET lock_timeout = '1s'; UPDATE {HOURLY} SET objects = objects")
        holder.rollback()
        loading.result()
    assert flaws(database) == []


class Mix:
    """Anything that may happen to rows, by chance; few keys, so that most rows meet another."""

    def __init__(self, seed: int, database: Database, settings: Settings, sink: PostgresSink) -> None:
        self.random = Random(seed)
        self.database = database
        self.settings = settings
        self.sink = sink
        self.made = 0
        self.steps: list[Callable[[], Any]] = [
            *[self.load] * 8,
            self.give_up,
            self.try_dry,
            self.refuse,
            self.accept,
            self.replay,
            *[self.go_astray] * 2,
            *[self.come_home] * 3,
            self.recall,
            self.drop_old,
            self.drop_a_day,
        ]

    def element(self) -> Any:
        pick = self.random.choice
        types = self.random.sample(("cars", "signs", "ghosts"), pick((1, 1, 2)))
        more = pick(({}, {}, {}, {"lane": 1}))
        return at(
            pick(TIMES), *[(one, pick((1, 2, 2, "many"))) for one in types], vehicle=pick("abc"), **more
        )

    def files(self) -> list[bytes]:
        sizes = self.random.choices((1, 3, 30), k=self.random.choice((1, 3)))
        self.made += len(sizes)  # no two files have the same bytes
        return [
            detections(*[self.element() for _ in range(size)]) + b" " * (self.made - number)
            for number, size in enumerate(sizes)
        ]

    def load(self) -> None:
        with self.sink.transaction() as transaction:
            new = dict.fromkeys(self.files())
            write(transaction, *new)
            transaction.commit()

    def give_up(self) -> None:
        with self.sink.transaction() as transaction:
            write(transaction, *dict.fromkeys(self.files()))
            transaction.finish()

    def try_dry(self) -> None:
        with closing(DryRunSink(self.database)) as sink, sink.transaction() as transaction:
            write(transaction.inner, *dict.fromkeys(self.files()))
            transaction.finish()
            transaction.commit()

    def refuse(self) -> None:
        self.accept()
        change = self.random.choice(
            (
                f"ALTER TABLE {TABLE} ADD CONSTRAINT mine CHECK (object_type <> 'ghosts') NOT VALID",
                f"CREATE RULE mine AS ON INSERT TO {TABLE} WHERE NEW.object_type = 'ghosts' "
                "DO INSTEAD NOTHING",
            )
        )
        query(self.database.url, change)

    def accept(self) -> None:
        drops = f"ALTER TABLE {TABLE} DROP CONSTRAINT IF EXISTS mine; DROP RULE IF EXISTS mine ON {TABLE}"
        query(self.database.url, drops)

    def replay(self) -> None:
        replay.records(self.settings, self.database, None, None, lambda line: None)

    def go_astray(self) -> None:
        """Rows that are loaded while a reader holds "other" stay there."""
        with closing(self.database.connect()) as reader, reader.cursor() as cursor:
            cursor.execute(f"SELECT FROM {TABLE}")
            self.load()

    def come_home(self) -> None:
        with closing(self.database.connect(autocommit=True)) as connection, connection.cursor() as cursor:
            for _ in range(self.random.choice((1, 2, 3, 20))):  # a move may stay under way
                if bring_home(cursor, DETECTIONS) is None:
                    break

    def recall(self) -> None:
        loaded = "SELECT file_id FROM mobileye_data.ingested_files WHERE state = 'loaded' ORDER BY 1"
        file_ids = [file_id for (file_id,) in query(self.database.url, loaded)]
        if file_ids:
            with closing(self.database.connect()) as connection, connection, connection.cursor() as cursor:
                take_out(cursor, self.random.choice(file_ids), {}, "somebody")

    def drop_old(self) -> None:
        """Drops the first of the days, with its rows in "other"."""
        with closing(self.database.connect(autocommit=True)) as connection, connection.cursor() as cursor:
            retention.drop_day(cursor, DETECTIONS, date(2022, 6, 5))
            retention.drop_strays(cursor, DETECTIONS, date(2022, 6, 6))

    def drop_a_day(self) -> None:
        day = self.random.choice(("2022-06-05", "2022-06-06"))
        name = f"{TABLE}_{day.replace('-', '')}"
        query(self.database.url, f"DROP TABLE IF EXISTS {name}; SELECT mobileye_data.recount_hours('{day}')")
        self.sink.close()
        self.sink = PostgresSink(self.database)


@pytest.mark.parametrize("seed", range(4))
def test_the_counts_are_exact_whatever_happens(
    seed: int, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setattr(db.hourly_counts, "_MOST", seed % 4 + 1)
    monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 20)
    mix = Mix(seed, database, load_settings(), PostgresSink(database))
    taken = []
    for _ in range(18):
        step = mix.random.choice(mix.steps)
        taken.append(step.__name__)
        step()
        assert flaws(database) == [], taken
    mix.sink.close()
    assert counted(database) != []


# Older databases, and what people change by hand ------------------------------------------------------


def test_the_rows_of_an_older_version_are_counted_once(database: Database, sink: PostgresSink) -> None:
    load(sink, detections(event(1), at("2022-06-07T00:00Z")))
    before = counted(database)
    query(database.url, f"DROP TABLE {HOURLY} CASCADE")
    for _ in range(2):
        with closing(database.connect()) as connection:
            schema.apply(connection)
        assert counted(database) == before
        query(database.url, (ROOT / "schema.sql").read_text())
    assert flaws(database) == []


@pytest.mark.parametrize("change", ["DELETE FROM {} WHERE object_type = 'cars'", "DROP TABLE {}_20220605"])
def test_rows_that_were_taken_away_are_found_and_can_be_counted_again(
    database: Database, sink: PostgresSink, change: str
) -> None:
    load(sink, detections(event(1), event(2), at("2022-06-07T00:00Z")))
    query(database.url, change.format(TABLE))
    (flaw,) = [flaw for flaw in flaws(database) if flaw.startswith("2022-06-05")]
    assert flaw.startswith("2022-06-05: detections_hourly has ")
    for day in ("2022-06-05", "2022-06-07"):
        query(database.url, f"SELECT mobileye_data.recount_hours('{day}')")
    assert flaws(database) == []


def test_a_table_of_counts_that_refuses_fails_the_file_and_keeps_no_row(
    database: Database, sink: PostgresSink
) -> None:
    query(database.url, f"ALTER TABLE {HOURLY} ADD CHECK (objects < 3)")
    with pytest.raises(Exception, match="the counts by hour refuse the file"):
        load(sink, detections(event(1)))
    assert query(database.url, f"SELECT count(*) FROM {TABLE}") == [(0,)]
