"""Ctrl+C and SIGTERM with the real program: it stops soon, logs what it did and loses nothing."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from db.connection import Database
from service.signals import StopSignal
from tests.support import ROOT, Daemon, detections, event, free_port, query, report, statuses, until

BOTH = [signal.SIGINT, signal.SIGTERM]

#: Rows of a file whose loading takes long enough to be interrupted, but not too long for a test.
LARGE = 25_000


def large() -> bytes:
    """One file with enough rows to be still in flight when the daemon is stopped."""
    return detections(*(event(0, ("cars", 1), vehicle=f"v{number}") for number in range(LARGE)))


def many(daemon: Daemon, count: int) -> None:
    for number in range(count):
        daemon.drop(f"vehicles_status_{number:04}.json", statuses(report(vehicle=f"v{number}")))


def undisposed(daemon: Daemon) -> bool:
    assert daemon.process is not None
    return daemon.process.poll() is not None


def until_ended(daemon: Daemon) -> int:
    """Waits for the end, at most the promised five seconds, and returns the exit code."""
    until(lambda: undisposed(daemon), 5, f"the daemon ends; log:\n{daemon.log()[-2000:]}")
    return daemon.wait()


def until_loading(daemon: Daemon) -> None:
    statement = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL \
                 AND application_name = 'mobileye-data' AND query ~ 'COPY'"
    )
    until(lambda: daemon.rows(statement), 30, "a large file is being loaded")


def loaded_once(daemon: Daemon) -> int:
    """Returns the number of loaded files after checking that each was loaded only once."""
    ((files, extra),) = daemon.rows(
        "SELECT count(*), coalesce(sum(deliveries), 0) - count(*) "
        "FROM mobileye_data.ingested_files WHERE state = 'loaded'"
    )
    assert extra == 0
    return int(files)


def send(daemon: Daemon, number: signal.Signals) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(number)


def test_an_idle_daemon_stops_and_logs_what_it_did(daemon: Daemon) -> None:
    daemon.start()
    many(daemon, 3)
    daemon.drop("vehicles_status_bad.json", b"[]")
    daemon.until_empty()
    send(daemon, signal.SIGTERM)
    assert until_ended(daemon) == 0
    last = daemon.log().splitlines()[-1]
    assert "stopped loaded=3 duplicate=0 failed=1 waiting=0 rows=3 rejected=0" in last


def test_a_closed_terminal_stops_a_daemon_as_sigterm_does(daemon: Daemon) -> None:
    daemon.prefix = ("env", "--default-signal=HUP")  # the tests themselves may run under nohup
    daemon.start()
    many(daemon, 3)
    daemon.until_empty()
    for _ in range(2):  # the shell and the terminal may each send it
        send(daemon, signal.SIGHUP)
    assert until_ended(daemon) == 0
    assert "stopped loaded=3 " in daemon.log().splitlines()[-1] and " worker died " not in daemon.log()


def test_a_daemon_under_nohup_outlives_its_terminal(daemon: Daemon) -> None:
    daemon.prefix = ("nohup",)
    daemon.start()
    send(daemon, signal.SIGHUP)
    many(daemon, 3)
    daemon.until_empty()
    send(daemon, signal.SIGTERM)
    assert until_ended(daemon) == 0


def test_a_stop_before_the_database_answered_counts_what_waits(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, f"postgresql://127.0.0.1:{free_port()}/d")
    many(daemon, 3)
    daemon.start(wait=False)
    until(lambda: " waiting for the database " in daemon.log())
    send(daemon, signal.SIGTERM)
    assert until_ended(daemon) == 0
    assert " stopped loaded=0 duplicate=0 failed=0 waiting=3 " in daemon.log().splitlines()[-1]


def test_a_stop_under_load_loses_nothing(daemon: Daemon) -> None:
    many(daemon, 2000)
    daemon.start()
    until(lambda: " loaded " in daemon.log())
    send(daemon, signal.SIGTERM)
    assert until_ended(daemon) == 0
    assert loaded_once(daemon) + len(daemon.left()) == 2000
    daemon.start()
    daemon.until_empty()
    assert daemon.stop() == 0
    assert loaded_once(daemon) == 2000
    assert "Traceback" not in daemon.log() and " worker died " not in daemon.log()


def test_a_large_file_in_flight_rolls_back_and_is_loaded_at_the_next_start(daemon: Daemon) -> None:
    daemon.drop("objects_detection_1.json", large())
    with locked_out(daemon):
        daemon.start()
        until_loading(daemon)
        send(daemon, signal.SIGTERM)
        assert until_ended(daemon) == 0
        assert "waiting=1" in daemon.log().splitlines()[-1]
    assert daemon.left() == ["objects_detection_1.json"] and loaded_once(daemon) == 0
    daemon.start()
    daemon.until_empty(60)
    assert daemon.rows("SELECT count(*) FROM mobileye_data.objects_detection_events") == [(LARGE,)]


@contextmanager
def locked_out(daemon: Daemon) -> Iterator[None]:
    """Locks a key that the large file needs, so that loading the file takes as long as the test wants."""
    assert daemon.url is not None
    with closing(psycopg2.connect(daemon.url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO mobileye_data.objects_detection_events "
            "SELECT %s, '2022-06-05T21:00:00.546Z', 'cars', 1, NULL, 0",
            [f"v{LARGE - 1}"],
        )
        yield


def test_a_second_ctrl_c_ends_at_once_and_loses_nothing(daemon: Daemon) -> None:
    daemon.drop("objects_detection_1.json", large())
    with locked_out(daemon):
        daemon.start()
        until_loading(daemon)
        while not undisposed(daemon):
            send(daemon, signal.SIGINT)
        assert daemon.wait() == 128 + signal.SIGINT
    assert daemon.left() == ["objects_detection_1.json"] and loaded_once(daemon) == 0
    daemon.start()
    daemon.until_empty(60)
    assert daemon.rows("SELECT count(*) FROM mobileye_data.objects_detection_events") == [(LARGE,)]


@contextmanager
def in_a_terminal(daemon: Daemon) -> Iterator[subprocess.Popen[str]]:
    """Starts the daemon in its own process group; a terminal sends Ctrl+C to such a group."""
    daemon.folder.mkdir(exist_ok=True)
    command = [sys.executable, str(ROOT / "main.py")]
    options: dict[str, Any] = {
        "cwd": daemon.folder,
        "env": daemon.environment(),
        "text": True,
        "start_new_session": True,
    }
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        yield process


@pytest.mark.parametrize(
    ("last_words", "number"),
    [
        ("watching", signal.SIGINT),
        ("loaded", signal.SIGINT),
        ("loaded", signal.SIGTERM),
    ],
)
def test_a_signal_to_the_whole_group_prints_no_traceback(
    daemon: Daemon, last_words: str, number: signal.Signals
) -> None:
    many(daemon, 500)
    with in_a_terminal(daemon) as process:
        assert process.stderr is not None
        line = ""
        while f" {last_words} " not in line:
            line = process.stderr.readline()
            assert line, f"the log says {last_words}"
        os.killpg(process.pid, number)
        rest = process.stderr.read()
        assert process.wait(20) == 0
    assert "Traceback" not in rest and " stopped " in rest.splitlines()[-1], rest
    assert loaded_once(daemon) + len(daemon.left()) == 500


class Silent:
    """A server that accepts connections and never answers."""

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        return f"postgresql://u:p@127.0.0.1:{self._listener.getsockname()[1]}/d"

    def __exit__(self, *_: object) -> None:
        self._listener.close()


class Absent:
    """No server at all."""

    def __enter__(self) -> str:
        return f"postgresql://u:p@127.0.0.1:{free_port()}/d"

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(("server", "number"), [(Silent(), signal.SIGINT), (Absent(), signal.SIGTERM)])
def test_the_daemon_stops_while_it_waits_for_the_database(
    tmp_path: Path, server: Silent | Absent, number: signal.Signals
) -> None:
    with server as url:
        daemon = Daemon(tmp_path, url).start(wait=False)
        until(lambda: "waiting for the database" in daemon.log())
        send(daemon, number)
        assert until_ended(daemon) == 0
    assert " stopped loaded=0 " in daemon.log().splitlines()[-1]


def test_the_daemon_stops_while_the_embedded_database_starts_and_can_be_started_again(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, None)
    daemon.drop("vehicles_status_1.json", statuses(report()))
    daemon.start(wait=False)
    until((tmp_path / "data" / "postgres.new").exists)
    assert daemon.stop() == 0
    assert " stopped loaded=0 " in daemon.log().splitlines()[-1]
    daemon.start()
    daemon.until_empty()
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log()


def test_once_fails_if_it_is_stopped_before_all_is_loaded(tmp_path: Path) -> None:
    with Absent() as url:
        daemon = Daemon(tmp_path, url).start("--once", wait=False)
        until(lambda: "waiting for the database" in daemon.log())
        assert daemon.stop() == 1


# The class itself ---------------------------------------------------------------------------------


def test_a_signal_sets_the_event_and_wakes() -> None:
    stop, woken = StopSignal(), threading.Event()
    stop.wake = woken.set
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.event.wait(20) and woken.wait(20)


def test_the_earlier_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in BOTH]
    with StopSignal().on_signals():
        assert [signal.getsignal(number) for number in BOTH] != before
    assert [signal.getsignal(number) for number in BOTH] == before


def test_a_signal_that_finds_the_event_locked_does_not_hang() -> None:
    """Sends a signal as if it interrupted Event.wait(), in which the program spends each of its pauses."""
    stop = StopSignal()
    with stop.on_signals(), stop.event._cond:  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.event.wait(20)


@contextmanager
def schema_locked(database: Database) -> Iterator[None]:
    """As while another daemon applies the schema."""
    with closing(psycopg2.connect(database.url)) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('mobileye_data.schema'))")
        yield


def is_waiting(database: Database) -> bool:
    return bool(query(database.url, "SELECT 1 FROM pg_locks WHERE NOT granted"))


def test_the_daemon_stops_while_the_database_keeps_it_waiting(
    tmp_path: Path, empty_database: Database
) -> None:
    daemon = Daemon(tmp_path, empty_database.url)
    with schema_locked(empty_database):
        daemon.start(wait=False)
        until(lambda: is_waiting(empty_database))
        assert daemon.stop() == 0
        assert is_waiting(empty_database), "the lock is still held: the daemon did not wait for it"
    assert " stopped " in daemon.log() and "Traceback" not in daemon.log()


def test_ctrl_c_ends_a_command_while_the_database_keeps_it_waiting(
    tmp_path: Path, empty_database: Database
) -> None:
    daemon = Daemon(tmp_path, empty_database.url)
    with schema_locked(empty_database):
        daemon.start("status", wait=False)
        until(lambda: is_waiting(empty_database))
        assert daemon.stop(signal.SIGINT) == -signal.SIGINT
        assert is_waiting(empty_database)
    assert daemon.log() == ""
