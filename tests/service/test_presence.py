"""A daemon shows that it watches a folder, until it ends."""

import errno
import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from service import presence
from service.presence import Presence, Watched, watched


def test_a_folder_is_watched_while_a_lock_is_held(tmp_path: Path) -> None:
    mine, other = Presence(str(tmp_path)), Presence(str(tmp_path))
    assert watched(str(tmp_path)) == Watched(False)
    mine.hold()
    other.hold()
    mine.release()
    found = watched(str(tmp_path))
    assert found.is_running and found.processes == [os.getpid()] and found.since is not None
    other.release()
    assert watched(str(tmp_path)) == Watched(False)
    assert os.listdir(tmp_path) == []


def test_a_lock_follows_to_a_new_folder_and_leaves_the_old_one(tmp_path: Path) -> None:
    folder, old = tmp_path / "in", tmp_path / "old"
    folder.mkdir()
    mine = Presence(str(folder))
    mine.hold()
    folder.rename(old)
    mine.hold()
    assert not watched(str(old)).is_running
    folder.mkdir()
    mine.hold()
    assert watched(str(folder)).is_running
    mine.release()


def test_a_program_that_a_daemon_starts_does_not_keep_its_lock(tmp_path: Path) -> None:
    mine = Presence(str(tmp_path))
    mine.hold()
    with subprocess.Popen(["sleep", "60"], close_fds=False) as process:
        mine.release()
        assert not watched(str(tmp_path)).is_running
        process.kill()


def test_a_file_system_without_locks_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = os.listdir("/proc/self/fd")
    Presence(str(tmp_path)).hold()
    assert watched(str(tmp_path)) == Watched(None)
    assert os.listdir("/proc/self/fd") == before


def test_a_system_that_names_no_holders_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Presence(str(tmp_path))
    mine.hold()
    monkeypatch.setattr(presence, "Path", lambda path: tmp_path / "no_proc")
    assert watched(str(tmp_path)) == Watched(True)
    monkeypatch.setattr(presence, "_holders", lambda inode: {1})
    assert watched(str(tmp_path)) == Watched(True, None, [1])
    mine.release()
