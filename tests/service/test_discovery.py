"""The watch folder lost and found, and an observer that can't be: with the real daemon."""

import os
import queue
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.connection import Database
from service.discovery import FileDiscovery
from service.events import (
    ClaimPassedOver,
    EntriesIgnored,
    Event,
    FileRecovered,
    FolderReadable,
    FolderUnreadable,
    ObserverFailed,
    ObserverRestarted,
    ObserverWorks,
    Publish,
)
from service.presence import Presence
from tests.support import ROOT, Daemon, Server, drop, report, statuses, until
from watcher.kind import ObserverKind
from watcher.observer import FolderObserver


@pytest.fixture(params=["native", "off"], scope="module")
def watching(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """One daemon whose folder is lost again and again."""
    with server.database() as database:
        settings = {"OBSERVER": request.param, "RESCAN_SECONDS": 0.3, "WORKERS": 1}
        daemon = Daemon(tmp_path_factory.mktemp(request.param), database.url, **settings).start()
        yield daemon
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log()


def load(daemon: Daemon, vehicle: str) -> None:
    daemon.drop(f"vehicles_status_{vehicle}.json", statuses(report(vehicle=vehicle)))
    daemon.until_empty()
    assert daemon.rows("SELECT 1 FROM mobileye_data.vehicle_status WHERE vehicle_id = %s", [vehicle]) == [
        (1,)
    ]


def test_a_folder_that_is_deleted_and_made_again_is_watched(watching: Daemon) -> None:
    load(watching, "before")
    shutil.rmtree(watching.incoming)
    until(lambda: " cannot read the watch folder " in watching.log())
    watching.incoming.mkdir()
    until(lambda: " reading the watch folder again " in watching.log())
    load(watching, "second")
    assert watching.log().count(" cannot read the watch folder ") == 1


def test_a_folder_that_is_renamed_away_and_made_again_is_watched(watching: Daemon, tmp_path: Path) -> None:
    load(watching, "at home")
    for away in ("a", "b"):
        watching.incoming.rename(tmp_path / away)
        watching.incoming.mkdir()
        load(watching, away)
        drop(tmp_path / away, "vehicles_status_lost.json", statuses(report(vehicle="lost")))
    assert watching.rows("SELECT 1 FROM mobileye_data.vehicle_status WHERE vehicle_id = 'lost'") == []
    (tmp_path / "a" / "vehicles_status_lost.json").rename(watching.incoming / "vehicles_status_back.json")
    watching.until_empty()


def test_a_folder_for_failed_files_that_is_deleted_is_made_again(watching: Daemon) -> None:
    for number in range(2):
        shutil.rmtree(watching.failed, ignore_errors=True)
        watching.drop(f"vehicles_status_{number}.json", b"[]")
        watching.until_empty()
        until(lambda: watching.failed.exists() and len(os.listdir(watching.failed)) == 2)


WITHOUT_INOTIFY = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'


def test_without_inotify_it_scans_and_says_so_once(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url, RESCAN_SECONDS=0.2)
    limited = ["unshare", "--user", "--map-root-user", "sh", "-c", WITHOUT_INOTIFY, "sh"]
    with (
        open(tmp_path / "log", "ab") as log,
        subprocess.Popen(
            [*limited, sys.executable, str(ROOT / "main.py")],
            cwd=tmp_path,
            env=daemon.environment(),
            stdout=log,
            stderr=log,
        ) as process,
    ):
        until(lambda: " not observing, only scanning " in daemon.log())
        load(daemon, "a")
        used = threads_and_descriptors(process.pid)
        for vehicle in ("b", "c", "d"):
            load(daemon, vehicle)
        until(lambda: threads_and_descriptors(process.pid) <= used)
        process.terminate()
        assert process.wait(20) == 0
    lines = [line for line in daemon.log().splitlines() if " not observing, only scanning " in line]
    assert len(lines) == 1 and 'reason="Too many open files"' in lines[0]
    assert "Traceback" not in daemon.log()


def threads_and_descriptors(pid: int) -> tuple[int, int]:
    return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))


# The class itself ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def look(folder: Path, publish: Publish) -> tuple[FileDiscovery, "queue.SimpleQueue[str | None]"]:
    heard: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    discovery = FileDiscovery(
        str(folder),
        ObserverKind.NATIVE,
        publish,
        Presence(str(folder)),
        heard.put,
        on_names_lost=lambda: heard.put(None),
        own_names=["failed"],
    )
    return discovery, heard


def test_a_thread_of_the_observer_that_dies_is_replaced(
    folder: Path,
) -> None:
    events = list[Event]()
    discovery, heard = look(folder, events.append)
    discovery.observe()
    observer = observer_of(discovery)
    for emitter in observer._observer.emitters:  # type: ignore[union-attr]
        emitter.stop()
    until(lambda: not observer.is_sound())
    assert events == []
    discovery.observe()
    assert events == [ObserverRestarted()]
    drop(folder, "a.json", b"{}")
    assert heard.get(timeout=20) == "a.json"
    discovery.stop()


def observer_of(discovery: FileDiscovery) -> FolderObserver:
    return discovery._observer


def test_each_trouble_is_reported_when_it_begins_and_when_it_ends(folder: Path) -> None:
    events = list[Event]()
    discovery, _ = look(folder, events.append)
    for _ in range(2):
        folder.rename(folder.parent / "away")
        for _ in range(3):
            discovery.observe()
            assert discovery.scan() is None
        (folder.parent / "away").rename(folder)
        for _ in range(3):
            discovery.observe()
            assert discovery.scan() == []
    assert events == 2 * [
        ObserverFailed(str(folder), "No such file or directory"),
        FolderUnreadable(str(folder), "No such file or directory"),
        ObserverWorks(str(folder)),
        FolderReadable(str(folder)),
    ]
    discovery.stop()


def test_what_a_dead_worker_had_claimed_is_put_back_and_reported(folder: Path) -> None:
    events = list[Event]()
    discovery, _ = look(folder, events.append)
    claims = folder / ".claimed" / "dead"
    claims.mkdir(parents=True)
    (claims / "a\n.json").write_bytes(b"{}")
    names = discovery.scan()
    assert names == ["a\n.json"]
    assert events == [FileRecovered("a\n.json")]


def test_what_is_passed_over_is_reported_once_and_again_when_it_comes_back(folder: Path) -> None:
    events = list[Event]()
    discovery, _ = look(folder, events.append)
    stray = folder / ".claimed" / "stray"
    stray.parent.mkdir()
    drop(folder, "a.json", b"{}")
    for _ in range(2):
        stray.touch()
        assert [discovery.scan() for _ in range(3)] == 3 * [["a.json"]]
        stray.unlink()
        assert discovery.scan() == ["a.json"]
    assert events == 2 * [ClaimPassedOver(str(stray), "Not a directory")]


def test_what_is_ignored_is_reported_once_and_again_when_it_comes_back(folder: Path) -> None:
    events = list[Event]()
    discovery, _ = look(folder, events.append)
    for name in ("a.JSON", "b.csv", "c.json.part", ".d", "e.tmp"):
        drop(folder, name, b"{}")
    (folder / "failed").mkdir()
    (folder / "2026-06-05.json").mkdir()
    for _ in range(2):
        assert [discovery.scan() for _ in range(3)] == 3 * [["a.JSON"]]
        (folder / "b.csv").unlink()
        discovery.scan()
        drop(folder, "b.csv", b"{}")
    assert events == [EntriesIgnored(["2026-06-05.json", "b.csv"]), EntriesIgnored(["b.csv"])]
