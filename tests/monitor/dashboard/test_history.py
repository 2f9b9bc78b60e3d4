"""The last hour, kept in memory, is what the ledger says."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from psycopg2.extensions import connection as Connection

from db.connection import Database
from monitor.dashboard.history import KEPT, STEP, History, Step
from tests.support import query

_ENTER = """
    INSERT INTO mobileye_data.ingested_files
        (file_id, name, last_name, state, rows_read, rows_inserted, rows_duplicate, rows_rejected,
         started_at, finished_at)
    SELECT nextval('mobileye_data.file_ids'), 'x', 'x', %s, 6, 3, 2, 1, at - interval '20 ms', at
    FROM (SELECT clock_timestamp() - make_interval(secs => %s) AS at) chosen, generate_series(1, %s)
"""


def enter(database: Database, seconds_ago: float, count: int = 1, state: str = "loaded") -> None:
    query(database.url, _ENTER, (state, seconds_ago, count))


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with closing(database.connect(autocommit=True)) as connection:
        yield connection


def loaded(steps: list[Step]) -> int:
    return sum(step.loaded for step in steps)


def test_the_first_look_reads_the_whole_hour_and_nothing_before(
    database: Database, connection: Connection
) -> None:
    for seconds_ago in (1, 100, 1800, 3500):
        enter(database, seconds_ago, 2)
    enter(database, 3700)
    steps = History().read(connection)
    assert (loaded(steps), len(steps)) == (8, KEPT // STEP)
    assert {b.start - a.start for a, b in pairwise(steps)} == {STEP}
    assert abs(datetime.now(UTC).timestamp() - steps[-1].start) <= STEP + 5


def test_a_step_has_what_its_files_had(database: Database, connection: Connection) -> None:
    enter(database, 100, 3)
    enter(database, 100, 1, "failed")
    (step,) = [step for step in History().read(connection) if step.loaded or step.failed]
    assert (step.loaded, step.failed, step.inserted, step.duplicate, step.rejected) == (3, 1, 12, 8, 4)
    assert step.rows == 24
    assert step.median_seconds == pytest.approx(0.02) and step.p95_seconds == pytest.approx(0.02)


def test_later_looks_add_what_has_come_and_read_only_the_end(
    database: Database, connection: Connection
) -> None:
    history = History()
    enter(database, 600, 5)
    assert loaded(history.read(connection)) == 5
    query(database.url, "UPDATE mobileye_data.ingested_files SET state = 'failed'")
    enter(database, 0, 2)
    enter(database, STEP, 1)  # committed late
    assert loaded(history.read(connection)) == 8


def test_an_entry_that_is_changed_is_not_counted_twice(database: Database, connection: Connection) -> None:
    """A file that fails again gets the time of that."""
    history = History()
    enter(database, STEP, 1, "failed")
    assert sum(step.failed for step in history.read(connection)) == 1
    query(database.url, "UPDATE mobileye_data.ingested_files SET finished_at = clock_timestamp()")
    assert sum(step.failed for step in history.read(connection)) == 1


def test_a_look_that_takes_long_goes_on_with_the_past_next_time(
    database: Database, connection: Connection
) -> None:
    enter(database, 1)
    enter(database, 1000)
    now = iter(range(0, 1000, 10))
    history = History(clock=lambda: float(next(now)))
    counts = [(loaded(steps), len(steps)) for steps in (history.read(connection) for _ in range(13))]
    assert counts[0] == (1, 60) and counts[-1] == (2, KEPT // STEP)
    assert [length for _, length in counts] == sorted(length for _, length in counts)


def test_a_history_that_nobody_asked_for_an_hour_begins_anew(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, later = History(), 0
    enter(database, 1, 4)
    assert loaded(history.read(connection)) == 4
    import monitor.dashboard.history as module

    now = module._now
    later = 2 * KEPT
    monkeypatch.setattr(module, "_now", lambda asked: now(asked) + later)
    steps = history.read(connection)
    assert (loaded(steps), len(steps)) == (0, KEPT // STEP)
