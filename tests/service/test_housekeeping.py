"""The thread that puts things in order beside the loading, whatever befalls it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from db.connection import Database
from processing.errors import DatabaseUnavailable
from service import housekeeping, upkeep
from service.housekeeping import Housekeeping
from tests.service.support import to_log
from tests.support import Daemon, detections, event, query, until

TABLE = "mobileye_data.objects_detection_events"
OTHER = f"SELECT count(*) FROM {TABLE}_other"


@pytest.fixture
def strange(database: Database) -> Database:
    """With rows of two days among the others."""
    values = ", ".join(f"('x', '2022-06-0{day}Z', 'cars', 1, NULL, 1)" for day in (5, 6))
    query(database.url, f"INSERT INTO {TABLE} VALUES {values}")
    return database


@contextmanager
def reader(database: Database) -> Iterator[None]:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM {TABLE}")
        yield


def keeping(ensure_running: Callable[[], Database]) -> Housekeeping:
    return Housekeeping(ensure_running, to_log(), round_seconds=0.05)


def is_home(database: Database) -> bool:
    return query(database.url, OTHER) == [(0,)]


def test_days_go_home(
    strange: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(upkeep, "_PAUSE_SECONDS", 0.01)
    with keeping(lambda: strange):
        until(lambda: is_home(strange))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" info    ")[2] for line in lines] == [
        f"a day has its partition now table=objects_detection_events day=2022-06-0{day}" for day in (5, 6)
    ]


def test_what_is_held_up_is_done_later_and_not_reported(
    strange: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(upkeep, "_LOCK_PAUSE_SECONDS", 0.01)
    rounds = []

    def ensure_running() -> Database:
        rounds.append(1)
        return strange

    with ExitStack() as kept:
        with reader(strange):
            kept.enter_context(keeping(ensure_running))
            until(lambda: len(rounds) > 2)
            assert not is_home(strange)
        until(lambda: is_home(strange))
    assert "housekeeping failed" not in capsys.readouterr().err


def test_an_error_is_reported_once_and_it_goes_on(
    strange: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = []

    def ensure_running() -> Database:
        rounds.append(1)
        if len(rounds) < 4:
            raise DatabaseUnavailable("it is away")
        return strange

    with keeping(ensure_running):
        until(lambda: is_home(strange))
    assert capsys.readouterr().err.count(' housekeeping failed reason="it is away"') == 1


def test_a_function_that_is_missing_is_reported_once(
    strange: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    query(strange.url, "DROP FUNCTION mobileye_data.bring_home")
    rounds = []

    def ensure_running() -> Database:
        rounds.append(1)
        return strange

    with keeping(ensure_running):
        until(lambda: len(rounds) > 3)
    output = capsys.readouterr().err
    assert output.count(" warning housekeeping failed reason=") == 1 and "bring_home" in output


def test_its_end_waits_for_nothing(strange: Database) -> None:
    """A move that takes long is cancelled."""
    query(
        strange.url,
        """
        CREATE OR REPLACE FUNCTION mobileye_data.strange_days(parent text) RETURNS date[]
        LANGUAGE sql AS 'SELECT ARRAY[date ''2022-06-05''] FROM pg_sleep(60)'
        """,
    )
    asleep = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    before = threading.active_count()
    with keeping(lambda: strange):
        until(lambda: query(strange.url, asleep))
    assert threading.active_count() == before
    assert query(strange.url, OTHER) == [(2,)]


def test_a_start_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "_CANCELS", 2)
    hanging, end = threading.Event(), threading.Event()

    def ensure_running() -> Database:
        hanging.set()
        end.wait(20)
        raise DatabaseUnavailable("too late")

    kept = keeping(ensure_running)
    with kept:
        assert hanging.wait(20)
    assert kept._thread.is_alive() and kept._thread.daemon
    end.set()
    kept._thread.join()


def test_the_daemon_brings_home_what_was_left(daemon: Daemon, strange: Database) -> None:
    daemon.start()
    until(lambda: is_home(strange))
    daemon.drop("objects_detection_1.json", detections(event()))
    daemon.until_empty()
    assert daemon.stop() == 0
    assert "housekeeping failed" not in daemon.log()
