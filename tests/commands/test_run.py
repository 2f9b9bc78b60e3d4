"""The main job from its start to its exit code: folders, --once, the embedded database."""

import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

import watcher.scan
from commands.run import run
from config import Settings
from db.connection import Database
from db.embedded.keeper import open_lock, try_lock
from processing.errors import DatabaseUnavailable
from tests.processing.support import give_to_other_user
from tests.support import Daemon, Server, Unprivileged, detections, drop, event, report, statuses, until

GOOD = statuses(report())
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
NOWHERE = "postgresql://127.0.0.1:1/d"


def test_its_folders_are_made_and_an_archive_keeps_what_is_loaded(tmp_path: Path, database: Database) -> None:
    settings = {"WATCH_FOLDER": "a/b/in", "FAILED_FOLDER": "c/d", "ARCHIVE_FOLDER": "e/f"}
    (tmp_path / "a/b/in").mkdir(parents=True)
    drop(tmp_path / "a/b/in", "vehicles_status_1.json", GOOD)
    assert once(Daemon(tmp_path, database.url, ON_LOADED="archive", **settings)) == 0
    assert all((tmp_path / folder).is_dir() for folder in settings.values())
    (kept,) = (tmp_path / "e/f").glob("????-??-??/*")
    assert (kept.name, kept.read_bytes()) == ("vehicles_status_1.json", GOOD)


@pytest.mark.parametrize("setting", ["WATCH_FOLDER", "FAILED_FOLDER", "ARCHIVE_FOLDER"])
def test_a_folder_that_can_not_be_made_is_reported(tmp_path: Path, setting: str) -> None:
    (tmp_path / "file").touch()
    done = Daemon(tmp_path, "postgresql://127.0.0.1:1/d", **{setting: "file/x"}).command()
    assert done.returncode == 2
    assert done.stderr == f"error: can't make the folder {tmp_path}/file/x: Not a directory\n"


def test_folders_on_different_file_systems_are_reported(tmp_path: Path) -> None:
    assert os.stat("/dev/shm").st_dev != tmp_path.stat().st_dev
    done = Daemon(tmp_path, "postgresql://127.0.0.1:1/d", FAILED_FOLDER="/dev/shm").command()
    assert done.returncode == 2
    assert done.stderr == f"error: /dev/shm has to be on the same file system as {tmp_path}/incoming\n"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "WIN1252"])
@pytest.mark.parametrize("arguments", [(), ("--once",), ("status",)])
def test_a_database_that_is_not_utf_8_is_refused(
    tmp_path: Path, server: Server, encoding: str, arguments: tuple[str, ...]
) -> None:
    name = f"in_{encoding.lower()}"
    locale = "LC_COLLATE 'C' LC_CTYPE 'C'"
    server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' {locale}")
    daemon = Daemon(tmp_path, server.url(name))
    daemon.drop("vehicles_status_1.json", GOOD)
    done = daemon.command(*arguments)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    message = f"error: the database {name} is {encoding}: make one with ENCODING 'UTF8'"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, message)
    assert daemon.left() == ["vehicles_status_1.json"]


@pytest.fixture
def unprivileged(tmp_path: Path, database: Database) -> Daemon:
    daemon = Unprivileged(tmp_path, database.url)
    (daemon.incoming / ".claimed").mkdir(parents=True)
    return daemon


@needs_root
@pytest.mark.parametrize("name", [".claimed", "failed"])
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_folder_of_another_user_is_reported(unprivileged: Daemon, name: str, mode: int) -> None:
    folder = unprivileged.incoming / name
    folder.mkdir(exist_ok=True)
    give_to_other_user(folder)
    folder.chmod(mode)
    assert once(unprivileged) == 2
    assert (
        unprivileged.log() == f"error: can't read and write the folder {folder}: it is of the user nobody\n"
    )


@needs_root
def test_a_folder_of_a_user_without_a_name_is_reported(unprivileged: Daemon) -> None:
    os.chown(unprivileged.incoming, 4242, 4242)
    unprivileged.incoming.chmod(0o755)
    assert once(unprivileged) == 2
    assert unprivileged.log().endswith(": it is of the user 4242\n")


def test_a_file_in_the_place_of_the_folder_of_claims_is_reported(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, NOWHERE)
    daemon.incoming.mkdir()
    (daemon.incoming / ".claimed").touch()
    done = daemon.command("--once")
    assert done.returncode == 2
    assert done.stderr == f"error: {daemon.incoming}/.claimed has to be a folder\n"


@needs_root
def test_what_is_passed_over_keeps_no_file_from_being_loaded(unprivileged: Daemon) -> None:
    claims = unprivileged.incoming / ".claimed"
    (claims / "file").touch()
    (claims / "nobody's").mkdir(mode=0o700)
    give_to_other_user(claims / "nobody's")
    for number in range(3):
        unprivileged.drop(f"vehicles_status_{number}.json", statuses(report(number)))
    assert once(unprivileged) == 0
    assert unprivileged.left() == [] and unprivileged.log().count(" passed over ") == 2
    assert unprivileged.rows("SELECT count(*) FROM mobileye_data.vehicle_status_history") == [(3,)]


# --once -------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path: Path, database: Database) -> Daemon:
    """One that soon gives up a file that does not end."""
    return Daemon(tmp_path, database.url, SETTLE_SECONDS=0.1)


def once(daemon: Daemon) -> int:
    return daemon.start("--once", wait=False).wait()


def last_line(daemon: Daemon) -> str:
    return daemon.log().splitlines()[-1].partition(" stopped ")[2]


def test_once_in_an_empty_folder_ends_with_0(daemon: Daemon) -> None:
    assert once(daemon) == 0
    assert last_line(daemon) == "loaded=0 duplicate=0 failed=0 waiting=0 rows=0 rejected=0"


def test_once_loads_what_is_there_and_ends_with_0(daemon: Daemon) -> None:
    for number in range(600):
        daemon.drop(f"vehicles_status_{number}.json", statuses(report(vehicle=f"v{number}")))
    daemon.drop("vehicles_status_again.json", statuses(report(vehicle="v1")))
    daemon.drop("objects_detection_1.json", detections(event()))
    assert once(daemon) == 0
    assert last_line(daemon) == "loaded=601 duplicate=1 failed=0 waiting=0 rows=602 rejected=0"
    assert daemon.left() == []


def test_once_ends_with_0_if_only_records_are_rejected(daemon: Daemon) -> None:
    daemon.drop("vehicles_status_1.json", statuses(report(), {"vehicle_id": "x"}))
    assert once(daemon) == 0
    assert last_line(daemon) == "loaded=1 duplicate=0 failed=0 waiting=0 rows=1 rejected=1"


@pytest.mark.parametrize("bad", [b"[]", GOOD[:-2]])
def test_once_ends_with_1_if_a_file_fails(daemon: Daemon, bad: bytes) -> None:
    daemon.drop("vehicles_status_bad.json", bad)
    daemon.drop("vehicles_status_good.json", GOOD)
    assert once(daemon) == 1
    assert last_line(daemon) == "loaded=1 duplicate=0 failed=1 waiting=0 rows=1 rejected=0"
    assert daemon.left() == [] and (daemon.failed / "vehicles_status_bad.json").read_bytes() == bad


def test_a_file_with_too_many_rejects_fails(daemon: Daemon, tmp_path: Path) -> None:
    strict = Daemon(tmp_path, daemon.url, MAX_REJECT_RATIO=0.5)
    strict.drop("vehicles_status_good.json", statuses(report(), {}))
    strict.drop("vehicles_status_bad.json", statuses(report(1), {}, {}))
    assert once(strict) == 1
    assert last_line(strict) == "loaded=1 duplicate=0 failed=1 waiting=0 rows=1 rejected=1"
    assert "of at most 0.5 of rejected records (MAX_REJECT_RATIO), got 2 of 3" in strict.log()


def test_once_ends_with_1_if_a_file_can_not_be_loaded_yet(daemon: Daemon) -> None:
    daemon.drop("vehicles_status_good.json", GOOD)
    with open(daemon.drop("vehicles_status_open.json", GOOD), "ab"):
        assert once(daemon) == 1
    assert last_line(daemon) == "loaded=1 duplicate=0 failed=0 waiting=1 rows=1 rejected=0"
    assert daemon.left() == ["vehicles_status_open.json"]


@pytest.mark.parametrize("good_scans", [0, 1])
def test_once_ends_with_1_if_it_can_not_list_the_folder_at_first_or_at_last(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, good_scans: int
) -> None:
    drop(tmp_path, "vehicles_status_1.json", GOOD)
    listings = iter([watcher.scan.waiting(str(tmp_path))][:good_scans])

    def waiting(folder: str) -> list[str]:
        with suppress(StopIteration):
            return next(listings)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(watcher.scan, "waiting", waiting)
    settings = Settings(watch_folder=tmp_path, failed_folder=tmp_path / "failed", database_url=database.url)
    assert run(settings, once=True) == 1


def test_once_gives_up_a_database_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.outage.ONCE_SECONDS", 1.0)
    path = Daemon(tmp_path, None).drop("vehicles_status_1.json", GOOD)
    settings = Settings(watch_folder=path.parent, database_url=NOWHERE)
    assert run(settings, once=True) == 1
    log = capfd.readouterr().err
    assert log.count(" warning waiting for the database ") == 1
    assert ' ended reason="gave up waiting for the database after ' in log.splitlines()[-1]
    assert path.read_bytes() == GOOD


def test_a_database_that_goes_away_right_after_it_was_prepared_is_an_outage(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    drop(tmp_path, "vehicles_status_1.json", GOOD)
    answers = iter([database])

    def ensure_running() -> Database:
        with suppress(StopIteration):
            return next(answers)
        raise DatabaseUnavailable("it was stopped")

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[Callable[[], Database]]:
        yield ensure_running

    monkeypatch.setattr("commands.run.open_database", opened)
    settings = Settings(watch_folder=tmp_path, failed_folder=tmp_path / "failed", database_url=database.url)
    assert run(settings, once=True) == 0
    assert " loaded=1 " in capfd.readouterr().err.splitlines()[-1]


def test_once_names_what_it_ignores(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url)
    for name in ("vehicles_status_1.JSON", "notes.txt", "vehicles_status_2.json.part"):
        daemon.drop(name, GOOD)
    daemon.start("--once", wait=False)
    assert daemon.wait() == 0
    assert ' ignored file=notes.txt reason="only ' in daemon.log() and " loaded=1 " in daemon.log()
    left = {name for name in os.listdir(daemon.incoming) if name[0] != "."}
    assert left == {"failed", "notes.txt", "vehicles_status_2.json.part"}


@pytest.mark.slow
def test_giving_up_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, NOWHERE)
    daemon.drop("vehicles_status_1.json", GOOD)
    assert once(daemon) == 1
    assert daemon.log().splitlines()[-1].count(' ended reason="gave up waiting for the database after 3')
    assert "Traceback" not in daemon.log() and daemon.left() == ["vehicles_status_1.json"]


def test_a_server_that_may_forget_what_it_committed_is_reported_once(daemon: Daemon, server: Server) -> None:
    assert server.execute("SHOW fsync") == [("off",)]
    assert once(daemon) == 0
    (line,) = [line for line in daemon.log().splitlines() if "warning" in line]
    assert ' database runs without fsync reason="fsync=off: if its machine crashes it may lose rows' in line


def test_a_server_with_few_locks_is_reported_once_and_what_to_set(daemon: Daemon) -> None:
    statement = "SELECT pg_get_functiondef('mobileye_data.most_days(bigint)'::regprocedure)"
    ((definition,),) = daemon.rows(statement)
    daemon.rows(definition.replace("/ (4 *", "/ (8 *"))
    assert once(daemon) == 0
    (line,) = [line for line in daemon.log().splitlines() if "few locks" in line]
    assert " warning the database has few locks setting=128 days=800 wanted=256 " in line
    assert ' reason="max_locks_per_transaction=128: only 800 days' in line
    assert "a table can have a partition; set max_locks_per_transaction to 256 for 1,500" in line


# The embedded database ----------------------------------------------------------------------------


def test_the_first_start_with_nothing_configured_and_a_kill_and_a_start_again(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, None).start()
    daemon.drop("vehicles_status_1.json", GOOD)
    daemon.until_empty()
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    daemon.drop("vehicles_status_2.json", statuses(report(vehicle="v2")))
    daemon.start()
    daemon.until_empty()
    done = daemon.command("sql", "select count(*), sum(deliveries) from ingested_files", "--csv")
    assert done.stdout == "count,sum\n2,2\n"
    assert daemon.stop() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", "data", "incoming", "log"]
    assert "Traceback" not in daemon.log() and "without fsync" not in daemon.log()


def test_an_embedded_database_that_dies_is_started_again(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, None).start()
    daemon.drop("vehicles_status_1.json", GOOD)
    daemon.until_empty()
    server = int((tmp_path / "data" / "postgres" / "postmaster.pid").read_text().split()[0])
    os.kill(server, signal.SIGKILL)
    daemon.drop("vehicles_status_2.json", statuses(report(vehicle="v2")))
    daemon.until_empty()
    assert daemon.stop() == 0
    assert " loaded=2 " in daemon.log().splitlines()[-1] and not os.listdir(daemon.failed)


def seconds_to_stop(daemon: Daemon) -> float:
    started = time.monotonic()
    assert daemon.stop() == 0
    return time.monotonic() - started


def test_it_stops_at_once_while_it_waits_for_its_database_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lock = open_lock(tmp_path / "data" / "users.lock")
    assert try_lock(lock, fcntl.LOCK_EX)  # as a keeper does whose server is still stopping
    daemon = Daemon(tmp_path, None).start(wait=False)
    until(lambda: has_open(daemon, "users.lock"))
    assert seconds_to_stop(daemon) < 2
    os.close(lock)


def test_it_stops_at_once_while_it_waits_for_its_database_in_an_outage(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, None).start()
    lock = open_lock(tmp_path / "data" / "start.lock")
    assert try_lock(lock, fcntl.LOCK_EX)  # as another process does that is starting it
    server = int((tmp_path / "data" / "postgres" / "postmaster.pid").read_text().split()[0])
    os.kill(server, signal.SIGKILL)
    daemon.drop("vehicles_status_1.json", GOOD)
    until(lambda: has_open(daemon, "start.lock"))
    assert seconds_to_stop(daemon) < 5
    assert daemon.left() == ["vehicles_status_1.json"]
    os.close(lock)


def has_open(daemon: Daemon, name: str) -> bool:
    assert daemon.process is not None
    return any(Path(opened.path).name == name for opened in psutil.Process(daemon.process.pid).open_files())


def test_an_embedded_database_that_can_not_start_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "postgres").mkdir()
    (tmp_path / "data" / "postgres" / "PG_VERSION").write_text("9.6\n")
    done = Daemon(tmp_path, None).command()
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "is of PostgreSQL 9.6" in done.stderr and done.stderr.count("\n") == 1
