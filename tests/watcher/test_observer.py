"""The observer with real folders and events: what it reports, and whether it notices that it is broken."""

import ctypes
import errno
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from watchdog.observers import inotify_c
from watchdog.observers.api import BaseObserver

from tests.support import drop, until
from watcher import observer as observer_module
from watcher.kind import ObserverKind
from watcher.observer import FolderObserver

OBSERVING = [ObserverKind.NATIVE, ObserverKind.POLLING]


class Heard:
    """The names that an observer has reported."""

    def __init__(self) -> None:
        self.names: queue.SimpleQueue[str] = queue.SimpleQueue()

    def next(self) -> str:
        return self.names.get(timeout=20)


def no_alarm() -> None:
    raise AssertionError("nothing was lost")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture(params=OBSERVING)
def observer(request: pytest.FixtureRequest, folder: Path, heard: Heard) -> Iterator[FolderObserver]:
    observer = FolderObserver(str(folder), request.param, heard.names.put, no_alarm)
    observer.start()
    yield observer
    observer.stop()


def write(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"{}")


def rename(folder: Path, name: str) -> None:
    drop(folder, name, b"{}")


def move_in(folder: Path, name: str) -> None:
    (folder.parent / "elsewhere").write_bytes(b"{}")
    (folder.parent / "elsewhere").rename(folder / name)


def link(folder: Path, name: str) -> None:
    (folder.parent / "elsewhere").write_bytes(b"{}")
    (folder / name).hardlink_to(folder.parent / "elsewhere")


def test_a_file_is_reported_however_it_arrives(observer: FolderObserver, folder: Path, heard: Heard) -> None:
    for arrive in (write, rename, move_in, link):
        arrive(folder, f"{arrive.__name__}.json")
    awaited = {"write.json", "rename.json", "move_in.json", "link.json"}
    while awaited:
        awaited.discard(heard.next())
    assert observer.is_sound()


def test_a_close_is_reported_again_so_that_nobody_waits_for_a_slow_writer(folder: Path, heard: Heard) -> None:
    observer = FolderObserver(str(folder), ObserverKind.NATIVE, heard.names.put, no_alarm)
    observer.start()
    with open(folder / "a.json", "wb") as file:
        assert heard.next() == "a.json"
        file.write(b"{}")
    assert heard.next() == "a.json"
    observer.stop()


def test_files_being_written_and_files_in_subfolders_are_not_reported(
    observer: FolderObserver, folder: Path, heard: Heard
) -> None:
    (folder / "a.json.part").write_bytes(b"{}")
    (folder / ".b.json").write_bytes(b"{}")
    (folder / "sub").mkdir()
    (folder / "sub" / "c.json").write_bytes(b"{}")
    drop(folder, "last.json", b"{}")
    assert heard.next() == "last.json"


def delete(folder: Path) -> None:
    shutil.rmtree(folder)


def recreate(folder: Path) -> None:
    shutil.rmtree(folder)
    (folder.parent / "takes its inode").mkdir()
    folder.mkdir()


def rename_away(folder: Path) -> None:
    folder.rename(folder.parent / "away")


def replace(folder: Path) -> None:
    folder.rename(folder.parent / "away")
    folder.mkdir()


@pytest.mark.parametrize("lose", [delete, recreate, rename_away, replace])
def test_an_observer_notices_that_it_has_lost_its_folder(
    observer: FolderObserver, folder: Path, lose: Callable[[Path], None]
) -> None:
    lose(folder)
    until(lambda: not observer.is_sound())


def test_an_observer_can_be_restarted_on_the_new_folder(
    observer: FolderObserver, folder: Path, heard: Heard
) -> None:
    replace(folder)
    until(lambda: not observer.is_sound())
    observer.stop()
    observer.start()
    drop(folder, "a.json", b"{}")
    assert heard.next() == "a.json"
    assert observer.is_sound()


@pytest.mark.parametrize("kind", OBSERVING)
def test_a_missing_folder_is_an_error_and_nothing_is_observed(tmp_path: Path, kind: ObserverKind) -> None:
    observer = FolderObserver(str(tmp_path / "nowhere"), kind, lambda name: None, no_alarm)
    with pytest.raises(FileNotFoundError):
        observer.start()
    assert not observer.is_sound()
    observer.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", OBSERVING)
def test_a_dead_thread_is_noticed(folder: Path, kind: ObserverKind) -> None:
    def die(name: str) -> NoReturn:
        raise SystemExit

    observer = FolderObserver(str(folder), kind, die, no_alarm)
    observer.start()
    assert observer.is_sound()
    drop(folder, "a.json", b"{}")
    until(lambda: not observer.is_sound())
    observer.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_inotify_thread_is_noticed_and_a_restart_brings_a_new_one(
    folder: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = FolderObserver(str(folder), ObserverKind.NATIVE, heard.names.put, no_alarm)
    observer.start()
    with monkeypatch.context() as patch:
        patch.setattr(inotify_c.InotifyFD, "handle_event", raise_as_watchdog_does)
        drop(folder, "a.json", b"{}")
        until(lambda: not observer.is_sound())
    observer.stop()
    observer.start()
    drop(folder, "b.json", b"{}")
    assert heard.next() == "b.json" and observer.is_sound()
    observer.stop()


def raise_as_watchdog_does(*_: object) -> NoReturn:
    raise KeyError("see watchdog issue 1388")


def test_an_observer_that_cannot_start_leaves_no_thread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    monkeypatch.setattr(inotify_c, "inotify_add_watch", lambda *_: -1)
    ctypes.set_errno(errno.ENOSPC)
    observer = FolderObserver(str(folder), ObserverKind.NATIVE, lambda name: None, no_alarm)
    with pytest.raises(OSError, match="inotify watch limit reached"):
        observer.start()
    assert set(threading.enumerate()) <= before and not observer.is_sound()


def test_the_alarm_is_raised_when_the_queue_of_inotify_overflows(
    folder: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, alarmed = threading.Event(), threading.Event()
    handle = inotify_c.InotifyFD.handle_event

    def handle_late(self: inotify_c.InotifyFD, event: inotify_c.InotifyEvent) -> None:
        go_on.wait()
        handle(self, event)

    monkeypatch.setattr(inotify_c.InotifyFD, "handle_event", handle_late)
    observer = FolderObserver(str(folder), ObserverKind.NATIVE, heard.names.put, alarmed.set)
    observer.start()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    path = folder / "a.json"
    # The kernel merges only equal events, so each file adds two: created and closed. That makes twice the
    # limit, because the waiting thread may have read a few thousand of them at once.
    for _ in range(limit):
        path.write_bytes(b"")
        path.unlink()
    assert not alarmed.is_set()
    go_on.set()
    assert alarmed.wait(20)
    observer.stop()


@pytest.mark.parametrize("kind", OBSERVING)
def test_a_stopped_observer_is_not_sound_and_can_be_stopped_twice(folder: Path, kind: ObserverKind) -> None:
    observer = FolderObserver(str(folder), kind, lambda name: None, no_alarm)
    assert not observer.is_sound()
    observer.start()
    observer.stop()
    assert not observer.is_sound()
    observer.stop()


def test_off_is_always_sound_and_starts_no_thread(tmp_path: Path) -> None:
    observer = FolderObserver(str(tmp_path / "nowhere"), ObserverKind.OFF, lambda name: None, no_alarm)
    observer.start()
    assert observer.is_sound()
    observer.stop()


def test_repeated_restarts_leave_no_descriptors_and_threads(folder: Path) -> None:
    def used() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    observer = FolderObserver(str(folder), ObserverKind.NATIVE, lambda name: None, no_alarm)
    observer.start()
    observer.stop()
    before = used()
    for _ in range(20):
        observer.start()
        observer.stop()
    until(lambda: used() <= before)


def test_a_thread_of_somebody_else_that_ends_is_no_harm(
    folder: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = threading.Event()
    other = threading.Thread(target=ending.wait)

    def native() -> BaseObserver:
        other.start()
        return make_native()

    make_native = observer_module._native
    monkeypatch.setattr(observer_module, "_native", native)
    observer = FolderObserver(str(folder), ObserverKind.NATIVE, heard.names.put, no_alarm)
    observer.start()
    ending.set()
    other.join()
    assert observer.is_sound()
    observer.stop()
