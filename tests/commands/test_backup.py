"""A backup that was taken while files came is restored, and loading goes on: nothing lost or doubled."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from db.connection import Database
from tests.support import Daemon, detections, event, query, report, statuses, until

GOOD = "ledger, tables and folders add up\n"
ALL = """
    SELECT vehicle_id, detection_time, object_type, object_value FROM mobileye_data.objects_detection_events
    ORDER BY 1, 2, 3
    """


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with the embedded database that keeps what it has loaded."""
    daemon = Daemon(tmp_path, None, ON_LOADED="archive", ARCHIVE_FOLDER="archive")
    daemon.start()
    yield daemon
    if daemon.process is not None:
        daemon.stop()


def of(daemon: Daemon, **settings: object) -> Daemon:
    """Another daemon of the same folder."""
    return Daemon(daemon.folder, None, ON_LOADED="archive", ARCHIVE_FOLDER="archive", **settings)


def url_of(daemon: Daemon) -> str:
    return daemon.command("url").stdout.splitlines()[0]


def load(daemon: Daemon, first: int, count: int = 10) -> None:
    for number in range(first, first + count):
        daemon.drop(f"objects_detection_{number}.json", detections(event(number), event(number + 1)))
        daemon.drop(f"vehicles_status_{number}.json", statuses(report(number), {}))
    daemon.until_empty()


def archived(daemon: Daemon) -> list[Path]:
    return sorted((daemon.folder / "archive").glob("*/*"))


def test_a_backup_is_restored_and_loading_goes_on(embedded: Daemon) -> None:
    load(embedded, 0)
    stop = threading.Event()

    def come() -> None:
        number = 100
        while not stop.is_set():
            load(embedded, number)
            number += 10

    coming = threading.Thread(target=come)
    coming.start()
    try:
        done = embedded.command("backup", "fleet.dump")
    finally:
        stop.set()
        coming.join()
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("fleet.dump: ")
    load(embedded, 3000)
    before = query(url_of(embedded), ALL)
    assert embedded.stop() == 0

    new = of(embedded, DATA_FOLDER="new")
    restored = new.command("restore", "fleet.dump")
    assert (restored.returncode, restored.stderr) == (0, "")
    assert "files are in the ledger, the last one finished at " in restored.stdout
    assert new.command("verify").stdout == GOOD
    new.start()
    try:
        since = query(url_of(new), ALL)
        assert 0 < len(since) < len(before) and set(since) < set(before)
        for path in archived(embedded):  # those since the backup, and all others, too
            path.rename(new.incoming / path.name)
        new.until_empty()
        assert query(url_of(new), ALL) == before
    finally:
        assert new.stop() == 0
    assert new.command("verify").stdout == GOOD


def test_it_moves_to_a_server_of_ones_own(embedded: Daemon, empty_database: Database) -> None:
    load(embedded, 0)
    assert embedded.stop() == 0
    assert embedded.command("backup", "fleet.dump").returncode == 0
    own = of(embedded, DATABASE_URL=empty_database.url)
    assert own.command("restore", "fleet.dump").stderr == ""
    assert own.command("verify").stdout == GOOD
    own.start()
    load(own, 5)
    assert own.stop() == 0
    assert own.command("verify").stdout == GOOD
    assert query(empty_database.url, f"SELECT count(*) FROM ({ALL}) a") == [(16 * 2,)]
    allowed = "SELECT has_function_privilege('public', 'mobileye_data.drop_day(text, date)', 'execute')"
    assert query(empty_database.url, allowed) == [(False,)]


def test_what_has_tables_is_not_restored_over(embedded: Daemon) -> None:
    load(embedded, 0)
    assert embedded.command("backup", "fleet.dump").returncode == 0
    refused = embedded.command("restore", "fleet.dump")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: the database mobileye has tables of ours already: restore into")


def test_a_part_of_a_backup_is_refused_and_leaves_nothing(embedded: Daemon) -> None:
    load(embedded, 0)
    assert embedded.command("backup", "fleet.dump").returncode == 0
    assert embedded.stop() == 0
    whole = (embedded.folder / "fleet.dump").read_bytes()
    new = of(embedded, DATA_FOLDER="new")
    for size in (0, 100, len(whole) * 9 // 10):
        (embedded.folder / "part.dump").write_bytes(whole[:size])
        done = new.command("restore", "part.dump")
        assert done.returncode == 2 and done.stderr.startswith("error: part.dump can't be restored: ")
    assert new.command("restore", "fleet.dump").returncode == 0
    assert new.command("verify").stdout == GOOD


def test_a_backup_that_fails_leaves_the_one_before(embedded: Daemon) -> None:
    load(embedded, 0)
    assert embedded.command("backup", "fleet.dump").returncode == 0
    before = (embedded.folder / "fleet.dump").read_bytes()
    url = url_of(embedded)
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE mobileye_data.ledger_name IN ACCESS EXCLUSIVE MODE")
        backup = threading.Thread(target=embedded.command, args=("backup", "fleet.dump"))
        backup.start()
        waiting = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg_dump'"
        until(lambda: query(url, waiting))
        backup.join()
    connection.close()
    assert (embedded.folder / "fleet.dump").read_bytes() == before
    assert [path.name for path in embedded.folder.glob("*.part")] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backup", "nowhere/x.dump"], "No such file or directory: 'nowhere/x.dump.part'"),
        (["restore", "nothing.dump"], "nothing.dump is no file"),
        (["restore", "."], ". is no file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(embedded: Daemon, arguments: list[str], says: str) -> None:
    done = embedded.command(*arguments)
    assert done.returncode in (1, 2) and says in done.stderr and len(done.stderr.splitlines()) == 1


def test_your_own_server_has_its_own_tools(daemon: Daemon) -> None:
    done = daemon.command("backup", "x.dump")
    assert done.returncode == 2 and "for your own server use its tools" in done.stderr


def test_a_backup_is_for_its_owner_alone(embedded: Daemon) -> None:
    assert embedded.command("backup", "fleet.dump").returncode == 0
    assert (embedded.folder / "fleet.dump").stat().st_mode & 0o777 == 0o600
