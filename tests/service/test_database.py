"""The embedded database shared by the daemon and the other commands, at any moment of its start and stop."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from psycopg2.extensions import parse_dsn

from config import Settings
from db.connection import Database
from processing.errors import Misconfigured
from service.database import open_database
from tests.support import (
    ROOT,
    Daemon,
    detections,
    event,
    query,
    report,
    running_server,
    statuses,
    stopping,
    until,
)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that brings its own database; nothing of it may be left."""
    with stopping(Daemon(tmp_path, None)) as daemon:
        yield daemon
    assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists()


def started(daemon: Daemon, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        cwd=daemon.folder,
        env=daemon.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(processes: list[subprocess.Popen[str]]) -> set[tuple[int, str, str]]:
    return {
        (process.returncode, out, err)
        for process in processes
        for out, err in [process.communicate(timeout=60)]
    }


def test_many_commands_may_ask_while_the_database_starts_and_stops(embedded: Daemon) -> None:
    ask = ("sql", "select count(*) from vehicle_status", "--csv")
    embedded.start()
    assert embedded.stop() == 0
    with_nothing_running = [started(embedded, *ask) for _ in range(3)]
    embedded.start(wait=False)
    at_the_start = [started(embedded, *ask) for _ in range(2)]
    assert answers(with_nothing_running + at_the_start) == {(0, "count\n0\n", "")}
    embedded.drop("vehicles_status_1.json", statuses(report()))
    embedded.until_empty()
    while_it_runs = started(embedded, *ask)
    assert answers([while_it_runs]) == {(0, "count\n1\n", "")}
    at_the_stop = [started(embedded, *ask) for _ in range(2)]
    assert embedded.stop() == 0
    at_the_stop += [started(embedded, *ask)]
    assert answers(at_the_stop) == {(0, "count\n1\n", "")}


def test_each_command_works_whether_the_daemon_runs_or_not(embedded: Daemon) -> None:
    embedded.start()
    assert embedded.stop() == 0
    for is_running in (False, True):
        if is_running:
            embedded.start()
        assert "0 files" in embedded.command("status").stdout
        assert embedded.command("sql", "select 6 * 7 as a", "--csv").stdout == "a\n42\n"
        url = embedded.command("url").stdout.strip()
        assert urlsplit(url).scheme == "postgresql"
    assert query(url, "SELECT 6 * 7") == [(42,)], "the URL works while the daemon runs"
    psql = subprocess.run(["psql", url, "-Atc", "select 1"], capture_output=True, text=True)
    assert psql.stdout == "1\n"


#: Most of them, alone, kept the daemon from its own database.
FOREIGN = {
    "PGHOSTADDR": "192.0.2.1",
    "PGSSLMODE": "verify-full",
    "PGOPTIONS": "-c search_path=pg_catalog -c synchronous_commit=off -c nonsense=1",
    "PGSERVICE": "production",
    "PGSERVICEFILE": "/nowhere",
    "PGTZ": "nonsense",
    "PGCLIENTENCODING": "LATIN1",
    "PGTARGETSESSIONATTRS": "standby",
    "PGREQUIREAUTH": "none",
}


def test_variables_of_libpq_do_not_reach_the_embedded_database(tmp_path: Path) -> None:
    embedded = Daemon(tmp_path, None, **FOREIGN)
    (tmp_path / "incoming").mkdir()
    embedded.drop("vehicles_status_1.json", statuses(report()))
    assert embedded.start("--once", wait=False).wait() == 0, embedded.log()
    count = embedded.command("sql", "select count(*) from vehicle_status", "--csv")
    assert (count.stdout, count.stderr) == ("count\n1\n", "")


def test_variables_of_libpq_reach_a_database_outside(tmp_path: Path, database: Database) -> None:
    parts = parse_dsn(database.url)
    embedded = Daemon(tmp_path, f"dbname={parts['dbname']} user={parts['user']} host=127.0.0.1",
                      PGPASSWORD=parts["password"], PGPORT=parts["port"])  # fmt: skip
    assert embedded.command("sql", "select 42 as a", "--csv").stdout == "a\n42\n"


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_daemon_whose_data_folder_is_moved_stops_and_loses_nothing(embedded: Daemon, is_idle: bool) -> None:
    embedded.start()
    files = [f"vehicles_status_{number}.json" for number in range(400)]
    for number, name in enumerate(files):
        embedded.drop(name, statuses(report(number)))
    until(lambda: len(embedded.left()) < 300)
    if is_idle:
        embedded.until_empty()
    (embedded.folder / "data").rename(embedded.folder / "moved")
    assert embedded.wait() == 2
    embedded.process = None
    last = embedded.log().splitlines()[-1]
    assert " error   ended " in last and "The data folder " in last and last.endswith(" code=2")
    assert not (embedded.folder / "data").exists() and not os.listdir(embedded.failed)
    assert embedded.start("--once", wait=False).wait() == 2, "it made a new database"
    (embedded.folder / "moved").rename(embedded.folder / "data")
    embedded.start()
    embedded.until_empty()
    counted = embedded.command("sql", "select count(*) from vehicle_status_history", "--csv")
    assert counted.stdout == "count\n400\n"
    assert "ledger, tables and folders add up" in embedded.command("verify").stdout


def test_without_a_thread_a_missing_data_folder_is_noticed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    settings = Settings(watch_folder=tmp_path / "in", data_folder=tmp_path / "data")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    opened = open_database(settings, on_gone=lambda: None, may_create=True)
    with pytest.raises(Misconfigured, match="was moved, removed or replaced"), opened as ensure_running:
        assert query(ensure_running().url, "SELECT 1") == [(1,)]
        (tmp_path / "data").rename(tmp_path / "moved")


def test_a_database_outside_is_given_as_it_is_configured(tmp_path: Path) -> None:
    settings = Settings(watch_folder=tmp_path, database_url="host=h dbname=d")
    with open_database(settings) as ensure_running:
        assert ensure_running().url == "host=h dbname=d"
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_database_is_one_and_the_same_however_often_it_is_asked_for(tmp_path: Path) -> None:
    settings = Settings(watch_folder=tmp_path / "in", data_folder=tmp_path / "data")
    with open_database(settings, may_create=True) as ensure_running, open_database(settings) as again:
        assert ensure_running() == ensure_running() == again()
        assert query(ensure_running().url, "SELECT current_database()") == [("mobileye",)]


def test_the_server_is_kept_for_the_url_only_while_asked(embedded: Daemon) -> None:
    assert embedded.start("--once", wait=False).wait() == 0
    done = embedded.command("url")
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    assert done.stderr.endswith("runs only while the daemon or another command does; --wait keeps it.\n")
    for number in (signal.SIGINT, signal.SIGTERM):
        with started(embedded, "url", "--wait") as process:
            assert process.stdout is not None and process.stderr is not None
            url = process.stdout.readline().strip()
            assert "runs until Ctrl+C" in process.stderr.readline()
            assert query(url, "SELECT 6 * 7") == [(42,)]
            process.send_signal(number)
            assert (process.wait(20), process.stderr.read()) == (0, "")


def test_the_url_of_an_outside_database_needs_no_waiting(daemon: Daemon) -> None:
    done = daemon.command("url", "--wait")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{daemon.url}\n", "")


# Databases that can't be written ---------------------------------------------------------------------

READING = [("status",), ("verify",), ("sql", "select count(*) from objects_detection_events", "--csv")]


@pytest.fixture
def loaded(daemon: Daemon) -> Daemon:
    daemon.drop("objects_detection_1.json", detections(event()))
    assert daemon.start("--once", wait=False).wait() == 0
    return daemon


@pytest.fixture
def standby() -> Iterator[tuple[Database, Path]]:
    """A server in recovery with our tables and two rows, and an empty folder."""
    with running_server("fsync=off") as server:
        folder = server.folder.parent
        server.execute("CREATE DATABASE fleet")
        daemon = Daemon(folder, server.url("fleet"))
        daemon.drop("objects_detection_1.json", detections(event()))
        assert daemon.start("--once", wait=False).wait() == 0
        server.stop()
        (server.folder / "data" / "standby.signal").touch()
        server.start()
        yield Database(server.url("fleet")), folder


def test_a_standby_answers_the_commands_that_read(standby: tuple[Database, Path]) -> None:
    database, folder = standby
    assert query(database.url, "SELECT pg_is_in_recovery()") == [(True,)]
    daemon = Daemon(folder, database.url)
    for arguments in READING:
        done = daemon.command(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments
    assert done.stdout == "count\n2\n"
    refused = daemon.command("sql", "--write", "delete from vehicle_status")
    assert refused.returncode == 1 and "read-only" in refused.stderr


def test_a_database_that_is_read_only_by_default_answers_the_commands_that_read(loaded: Daemon) -> None:
    assert loaded.url is not None
    name = loaded.url.rpartition("/")[2]
    loaded.rows(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    for arguments in READING:
        done = loaded.command(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments


def test_a_read_only_database_without_our_tables_is_refused(empty_database: Database, tmp_path: Path) -> None:
    name = empty_database.url.rpartition("/")[2]
    query(empty_database.url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    done = Daemon(tmp_path, empty_database.url).command("sql", "select 1")
    assert done.returncode == 2
    assert f"the database {name} lacks tables of this version and is read-only" in done.stderr
