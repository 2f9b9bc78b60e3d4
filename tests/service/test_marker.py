"""The marker in the watch folder: no other database takes its files unless somebody says so."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import Settings
from db.connection import Database
from processing.errors import Misconfigured
from service import marker
from service.bucket_marker import BucketStore
from service.database import connected, open_database, prepare_database
from service.events import CommitsUnsafe, DatabaseNew, Event, MarkerUnwritten
from service.kept_client import KeptClient
from service.marker import Marker
from service.signals import StopSignal
from sources.policy import BucketPlace
from tests.seaweed import Seaweed
from tests.support import Daemon, Server, query, report, statuses

GOOD = statuses(report())
MARKER = Marker("of-another", "the database fleet on db.example:5432")


@pytest.fixture
def settings(tmp_path: Path, database: Database) -> Settings:
    return Settings(watch_folder=tmp_path, database_url=database.url)


def prepared(settings: Settings, *, accepts_new: bool = False) -> list[Event]:
    """What a daemon publishes that prepares its database."""
    published: list[Event] = []
    with open_database(settings, may_create=True, accepts_new=accepts_new) as ensure_running:
        stop = StopSignal()
        prepare_database(
            settings,
            ensure_running,
            KeptClient(None),
            published.append,
            stop,
            once=True,
            accepts_new=accepts_new,
        )
    return [event for event in published if not isinstance(event, CommitsUnsafe)]


# Any database -------------------------------------------------------------------------------------------


def test_the_first_start_announces_a_new_database_and_marks_the_folder(
    settings: Settings, database: Database
) -> None:
    (announced,) = prepared(settings)
    assert isinstance(announced, DatabaseNew)
    ((ledger,),) = query(database.url, "SELECT name FROM mobileye_data.ledger_name")
    assert marker.read(settings.folder) == Marker(ledger, announced.place)
    assert stat.S_IMODE((settings.folder / marker.NAME).stat().st_mode) == 0o644
    assert announced.place.startswith("the database test_") and " on 127.0.0.1:" in announced.place
    written = (settings.folder / marker.NAME).stat()
    assert prepared(settings) == []
    assert (settings.folder / marker.NAME).stat() == written, "it was written again"


def test_a_database_of_an_older_version_is_not_new(settings: Settings, database: Database) -> None:
    query(
        database.url,
        "INSERT INTO mobileye_data.ingested_files (file_id, name, last_name, state, started_at)"
        " VALUES (1, 'a', 'a', 'loaded', now())",
    )
    assert prepared(settings) == []
    assert marker.read(settings.folder) is not None


def test_another_database_is_refused_until_it_is_accepted(
    settings: Settings, server: Server, database: Database
) -> None:
    prepared(settings)
    with server.database() as other:
        elsewhere = settings.model_copy(update={"database_url": other.url})
        for _ in range(2):
            with pytest.raises(Misconfigured, match=r"into the database test_.* is not the database"):
                prepared(elsewhere)
        assert query(other.url, "SELECT count(*) FROM mobileye_data.ledger_name") == [(0,)]
        assert len(prepared(elsewhere, accepts_new=True)) == 1
        assert prepared(elsewhere) == []
        with pytest.raises(Misconfigured):
            prepared(settings)


def test_another_database_that_is_not_empty_is_refused_too(settings: Settings) -> None:
    """As after a trial with the embedded one: without its settings the daemon would use that."""
    prepared(settings)
    marker.write(settings.folder, MARKER)
    with pytest.raises(Misconfigured, match=MARKER.database):
        prepared(settings)


def test_a_restored_dump_is_no_other_database(settings: Settings, server: Server, database: Database) -> None:
    """So are pg_upgrade and a replica: the name is a row like any other."""
    prepared(settings)
    ((ledger,),) = query(database.url, "SELECT name FROM mobileye_data.ledger_name")
    with server.database() as restored:
        with connected(restored):
            query(restored.url, "INSERT INTO mobileye_data.ledger_name (name) VALUES (%s)", (ledger,))
        assert prepared(settings.model_copy(update={"database_url": restored.url})) == []
        found = marker.read(settings.folder)
        assert found is not None and found.ledger == ledger
        assert restored.url.rpartition("/")[2] in found.database, "it still names the old place"


def test_a_folder_that_cannot_be_marked_is_loaded_all_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (failed,) = [event for event in prepared(settings) if isinstance(event, MarkerUnwritten)]
    assert failed == MarkerUnwritten(str(settings.folder), "No space left on device")
    monkeypatch.undo()
    prepared(settings)
    assert marker.read(settings.folder) is not None, "the rest of the first attempt is in the way"


def test_of_two_that_mark_a_folder_at_once_the_first_stays(tmp_path: Path) -> None:
    other = Marker("another", "the topics", "another")
    marker.add(tmp_path, MARKER)
    marker.add(tmp_path, other)
    assert marker.read(tmp_path) == MARKER and os.listdir(tmp_path) == [marker.NAME]
    marker.write(tmp_path, other)
    assert marker.read(tmp_path) == other


def test_of_two_that_mark_a_bucket_at_once_the_first_stays(seaweed: Seaweed) -> None:
    store = BucketStore(seaweed.client, BucketPlace(seaweed.bucket(), "in/"))
    other = Marker("another", "the topics", "another")
    store.add(MARKER)
    store.add(other)
    assert store.read() == MARKER
    store.write(other)
    assert store.read() == other


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    "make",
    [
        link,
        os.mkfifo,
        os.mkdir,
        Path.touch,
        lambda path: path.write_text("{"),
        lambda path: path.write_text("{}"),
        lambda path: path.write_bytes(b"\xff" * 20_000),
    ],
)
def test_a_marker_that_is_none_is_named_and_never_followed(settings: Settings, make: object) -> None:
    make(settings.folder / marker.NAME)  # type: ignore[operator]
    with pytest.raises(Misconfigured, match=rf"can't read {settings.folder}/{marker.NAME}, .*remove it"):
        prepared(settings)


def test_replay_refuses_another_database_too(daemon: Daemon) -> None:
    assert daemon.start("--once").wait() == 0
    marker.write(daemon.incoming, MARKER)
    daemon.failed.mkdir(exist_ok=True)
    (daemon.failed / "vehicles_status_1.json").write_bytes(GOOD)
    for what in ("failed", "rejected"):
        done = daemon.command("replay", what)
        assert done.returncode == 2 and MARKER.database in done.stderr
    assert (daemon.failed / "vehicles_status_1.json").exists()


# The embedded database ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose daemon has loaded a file and stopped."""
    folder = tmp_path_factory.mktemp("used")
    daemon = Daemon(folder, None)
    daemon.drop("vehicles_status_1.json", GOOD)
    assert daemon.start("--once", wait=False).wait() == 0
    assert daemon.log().count(" new database ") == 1
    return folder


@pytest.fixture
def moved(used: Path) -> Iterator[Daemon]:
    """Its daemon, with the data folder moved away and a file that waits."""
    (used / "data").rename(used / "moved")
    daemon = Daemon(used, None)
    daemon.drop("vehicles_status_2.json", statuses(report(1)))
    yield daemon
    shutil.rmtree(used / "data", ignore_errors=True)
    (used / "moved").rename(used / "data")


@pytest.mark.parametrize("arguments", [["--once"], []])
def test_a_moved_data_folder_is_no_reason_for_a_new_database(moved: Daemon, arguments: list[str]) -> None:
    assert moved.start(*arguments, wait=False).wait() == 2
    last = moved.log().splitlines()[-1]
    assert last.startswith("error: until now the files of ") and "--new-database" in last
    assert moved.left() == ["vehicles_status_2.json"] and not (moved.folder / "data").exists()


def test_an_empty_mount_point_is_no_reason_for_a_new_database(moved: Daemon) -> None:
    (moved.folder / "data").mkdir()
    assert moved.start("--once", wait=False).wait() == 2
    assert os.listdir(moved.folder / "data") == []


@pytest.mark.parametrize("has_marker", [True, False])
@pytest.mark.parametrize(
    "arguments", [["status"], ["sql", "select 1"], ["url"], ["verify"], ["check", "x"], ["replay", "failed"]]
)
def test_no_command_but_the_daemon_makes_a_database(
    moved: Daemon, arguments: list[str], has_marker: bool
) -> None:
    text = (moved.incoming / marker.NAME).read_text()
    if not has_marker:
        (moved.incoming / marker.NAME).unlink()
    done = moved.command(*arguments)
    (moved.incoming / marker.NAME).write_text(text)
    assert done.returncode == (2 if has_marker else 1)
    assert done.stdout == "" or arguments == ["status"]  # which shows the folder all the same
    expected = "error: until now the files of " if has_marker else "error: no database here yet: "
    assert done.stderr.startswith(expected) and done.stderr.count("\n") == 1
    assert not (moved.folder / "data").exists()


def test_a_new_database_can_be_accepted(moved: Daemon) -> None:
    text = (moved.incoming / marker.NAME).read_text()
    assert moved.start("--once", "--new-database", wait=False).wait() == 0
    assert moved.start("--once", wait=False).wait() == 0, "it has to be accepted once"
    (moved.incoming / marker.NAME).write_text(text)
