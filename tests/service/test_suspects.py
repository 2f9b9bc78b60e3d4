"""The daemon with real processes: what one file does to its transaction is not taken for an outage."""

import itertools
import os
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg2
import pytest

from commands.run import prepare_folders
from config import Settings
from db.connection import Database
from service.build import make_daemon
from service.destination import ask_to_write
from service.kept_client import KeptClient
from service.probe import Probe
from service.signals import StopSignal
from tests.service.support import to_log
from tests.support import Daemon, query, report, statuses, until

CURSED = "vehicles_status_cursed.json"


def curse(database: Database, action: str, condition: str = "NEW.vehicle_id = 'cursed'") -> None:
    """What the database does when it is given a report of that vehicle."""
    query(
        database.url,
        f"""
        CREATE OR REPLACE FUNCTION curse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF {condition} THEN {action}; END IF;
                RETURN NEW;
            END $$;
        CREATE OR REPLACE TRIGGER curse BEFORE INSERT ON mobileye_data.vehicle_status
        FOR EACH ROW EXECUTE FUNCTION curse()
        """,
    )


def drop_cursed(daemon: Daemon) -> Path:
    return daemon.drop(CURSED, statuses(report(vehicle="cursed")))


def feed_until(daemon: Daemon, condition: Callable[[], object]) -> None:
    """With other files, which are good, all the time."""
    numbers = itertools.count()

    def is_so() -> object:
        number = next(numbers)
        daemon.drop(f"vehicles_status_{number}.json", statuses(report(vehicle=f"v{number}")))
        return condition()

    until(is_so, 90, f"the condition holds; log:\n{daemon.log()[-3000:]}")


def failures(url: str) -> list[tuple[str, str]]:
    return query(url, "SELECT name, error FROM mobileye_data.ingested_files WHERE state = 'failed'")


def loaded(daemon: Daemon) -> int:
    ((count,),) = daemon.rows("SELECT count(*) FROM mobileye_data.ingested_files WHERE state = 'loaded'")
    return int(count)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("PERFORM currval('never')", 'currval of sequence "never" is not yet defined in this session'),
        (
            "ALTER TABLE mobileye_data.vehicle_status SET (fillfactor = 70)",
            'cannot ALTER TABLE "vehicle_status" because it is being used by active queries in this session',
        ),
    ],
    ids=["55000", "55006"],
)
def test_a_file_that_fails_alone_while_others_load_fails_and_stops_nothing(
    tmp_path: Path, database: Database, action: str, told: str, workers: int
) -> None:
    query(database.url, "CREATE SEQUENCE never")
    curse(database, action)
    daemon = Daemon(tmp_path, database.url, WORKERS=workers)
    drop_cursed(daemon)
    daemon.start()
    feed_until(daemon, lambda: (daemon.failed / CURSED).exists())
    daemon.until_empty()
    assert daemon.stop() == 0
    reason = f"{told}; 5 times, with this file alone, while others were loaded"
    assert failures(database.url) == [(CURSED, reason)]
    assert " waiting for the database " not in daemon.log()
    lines = [line for line in daemon.log().splitlines() if f" suspected file={CURSED}" in line]
    assert len(lines) == 5 and " reason=" in lines[0] and " next=" in lines[0]


def test_a_file_over_which_the_database_sleeps_fails_and_stops_nothing(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.heartbeat.DATABASE_SECONDS", 1.0)
    curse(database, "PERFORM pg_sleep(300)")
    asleep = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    daemon = Daemon(tmp_path, database.url)
    drop_cursed(daemon)
    settings = Settings(watch_folder=daemon.incoming, workers=2, rescan_seconds=0.2)
    prepare_folders(settings)
    stop = StopSignal()
    process = make_daemon(settings, database, lambda: database, KeptClient(None), to_log(), stop, once=False)

    def feed() -> None:
        try:
            # Files in the same batch would wait for 10 s, longer than such a worker lives here: its backend
            # keeps their rows for so long.
            until(lambda: query(database.url, asleep))
            feed_until(daemon, lambda: (daemon.failed / CURSED).exists())
        finally:
            stop.event.set()
            stop.wake()

    feeder = threading.Thread(target=feed)
    feeder.start()
    totals = process.run()
    feeder.join()
    assert totals["failed"] == 1 and totals["loaded"] > 100
    reason = "the database did not answer this batch for 1 s; 5 times, with this file alone"
    assert failures(database.url) == [(CURSED, f"{reason}, while others were loaded")]
    assert " waiting for the database " not in capsys.readouterr().err


@pytest.mark.parametrize(
    "action",
    [
        "PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(20)",
        "SET LOCAL temp_file_limit = '64kB'; SET LOCAL work_mem = '64kB';"
        "PERFORM DISTINCT repeat(i::text, 50) FROM generate_series(1, 100000) AS i",
    ],
    ids=["connection", "disk"],
)
def test_a_file_that_may_meet_with_what_the_server_lacks_waits_and_does_not_stop_the_others(
    tmp_path: Path, database: Database, action: str
) -> None:
    curse(database, action)
    daemon = Daemon(tmp_path, database.url, WORKERS=2)
    drop_cursed(daemon)
    daemon.start()
    feed_until(daemon, lambda: loaded(daemon) > 500)
    until(lambda: daemon.left() == [CURSED])
    assert failures(database.url) == []
    query(database.url, "DROP TRIGGER curse ON mobileye_data.vehicle_status")
    daemon.until_empty(70)
    assert daemon.stop() == 0
    assert daemon.rows("SELECT count(*) FROM mobileye_data.vehicle_status WHERE vehicle_id = 'cursed'") == [
        (1,)
    ]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "hold",
    [
        "INSERT INTO mobileye_data.vehicle_status_history (vehicle_id, report_time, status, file_id) "
        "VALUES ('cursed', '2022-05-05 22:00:00.546Z', 'driving', 0)",
        "INSERT INTO mobileye_data.vehicle_status (vehicle_id, report_time, status, file_id) "
        "VALUES ('cursed', '2022-05-05 22:00:00.546Z', 'driving', 0)",
    ],
    ids=["key", "vehicle"],
)
def test_only_the_file_that_needs_a_key_of_an_open_transaction_waits_for_it(
    tmp_path: Path, database: Database, hold: str, workers: int
) -> None:
    daemon = Daemon(tmp_path, database.url, WORKERS=workers)
    query(database.url, "SELECT mobileye_data.add_partition('vehicle_status_history', '2022-05-05')")
    with closing(psycopg2.connect(database.url)) as other:
        other.cursor().execute(hold)
        drop_cursed(daemon)
        for number in range(300):
            daemon.drop(f"vehicles_status_{number}.json", statuses(report(vehicle=f"v{number}")))
        daemon.start()
        until(lambda: daemon.left() == [CURSED])
        daemon.drop("vehicles_status_late.json", statuses(report(vehicle="late")))
        until(lambda: loaded(daemon) == 301)
        other.rollback()
    daemon.until_empty()
    assert daemon.stop() == 0
    assert loaded(daemon) == 302 and not os.listdir(daemon.failed)
    assert not any(words in daemon.log() for words in (" waiting for ", " suspected ", " failed "))


# The probe ----------------------------------------------------------------------------------------


def asked(database: Database, seconds: float = 20.0) -> Probe:
    probe = Probe(partial(ask_to_write, database), lambda: None, seconds)
    probe.start()
    until(probe.is_over)
    return probe


def test_a_database_that_writes_has_no_complaint_and_keeps_nothing_of_the_probe(database: Database) -> None:
    assert asked(database).complaint is None
    assert query(database.url, "SELECT * FROM mobileye_data.ingested_files") == []


def test_a_database_that_can_not_be_reached_or_does_not_write_is_to_blame(database: Database) -> None:
    assert "refused" in str(asked(Database("postgresql://127.0.0.1:1/d")).complaint)
    query(database.url, "ALTER TABLE mobileye_data.ingested_files RENAME TO lost")
    assert "does not exist" in str(asked(database).complaint)


def test_a_database_that_says_nothing_is_to_blame() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/d?connect_timeout=60"
        assert str(asked(Database(url), 0.2).complaint) == "it does not answer for 0.2 s"
