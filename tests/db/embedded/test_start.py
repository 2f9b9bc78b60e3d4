"""Starts of the embedded server that fail, take long, or meet another server or a user without a name."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from db.embedded import account as accounts
from db.embedded import server as embedded
from db.embedded.account import can_run, choose_account, mapped
from db.embedded.keeper import Account
from db.embedded.log import ServerLog
from db.embedded.server import Embedded, find_binaries
from processing.errors import DatabaseUnavailable, Misconfigured
from tests.db.embedded.test_server import add_row, count_rows, postmaster, run, until, used_folder
from tests.support import free_port

IS_ROOT = os.geteuid() == 0
NAMELESS = 54_321


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        yield from used_folder(Path(parent) / "data")


# What the log says ------------------------------------------------------------------------------------

FULL = """\
2026-11-28 12:00:00.000 UTC [7] LOG:  starting PostgreSQL 18.0
2026-11-28 12:00:00.001 UTC [7] FATAL:  could not write lock file "postmaster.pid": No space left on device
2026-11-28 12:00:00.002 UTC [7] LOG:  database system is shut down
"""
BROKEN = """\
2026-11-28 12:00:00.000 UTC [7] PANIC:  could not locate a valid checkpoint record at 0/1A2B3C
2026-11-28 12:00:00.001 UTC [9] FATAL:  the database system is starting up
2026-11-28 12:00:00.002 UTC [6] LOG:  startup process (PID 7) was terminated by signal 6: Aborted
2026-11-28 12:00:00.003 UTC [6] FATAL:  could not do what comes later
2026-11-28 12:00:00.004 UTC [6] LOG:  database system is shut down
"""
INITDB = """\
initdb: error: could not look up effective user ID 2001: user does not exist
initdb: data directory "/data/postgres.new" not removed at user's request
"""
CHILD = """\
2026-11-28 12:00:00.000 UTC [7] FATAL:  could not extend file "base/1/1255": No space left on device
2026-11-28 12:00:00.000 UTC [7] HINT:  Check free disk space.
child process exited with exit code 1
initdb: data directory "/data/postgres.new" not removed at user's request
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FULL, 'FATAL: could not write lock file "postmaster.pid": No space left on device'),
        (BROKEN, "PANIC: could not locate a valid checkpoint record at 0/1A2B3C"),
        (INITDB, "initdb: error: could not look up effective user ID 2001: user does not exist"),
        (CHILD, 'FATAL: could not extend file "base/1/1255": No space left on device'),
        (
            "unshare: write failed /proc/self/uid_map: denied\n",
            "unshare: write failed /proc/self/uid_map: denied",
        ),
        ("Traceback (most recent call last):\nOSError: odd\nmore\n", "OSError: odd"),
        ("one\ntwo\n", "two"),
        ("", "it says nothing"),
    ],
)
def test_the_line_that_matters_is_shown(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "postgres.log"
    path.write_text("2026-11-27 12:00:00.000 UTC [5] PANIC:  of yesterday\n")
    log = ServerLog(path)
    with log.open() as file:
        file.write(text.encode())
    assert log.reason() == reason


def test_a_disk_too_full_for_a_line_of_the_log_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ServerLog(tmp_path / "postgres.log")
    log.open().close()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert log.reason() == "No space left on device"


# Programs that can't be run ---------------------------------------------------------------------------


def test_a_python_that_cannot_be_run_is_not_the_data_folder_s_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = folder.parent / "python"
    python.touch(mode=0o644)
    monkeypatch.setattr(sys, "executable", str(python))
    expected = f"can't be started: can't run {python}: Permission denied"
    with pytest.raises(Misconfigured, match=expected) as caught, Embedded(folder):
        pass
    assert "data folder" not in str(caught.value)


def test_a_program_of_postgresql_that_cannot_be_run_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binaries = folder.parent / "bin"
    binaries.mkdir()
    (binaries / "initdb").touch(mode=0o644)
    monkeypatch.setattr(embedded, "find_binaries", lambda: binaries)
    monkeypatch.setattr(accounts, "can_run", lambda *_: True)
    expected = rf"does not start: FATAL: can't run .*{binaries}/initdb: Permission denied"
    with pytest.raises(DatabaseUnavailable, match=expected), Embedded(folder):
        pass


# A slow start -----------------------------------------------------------------------------------------


class SlowMachine:
    """A time module for which the first sight of a path takes a minute."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = False

    def monotonic(self) -> float:
        self._seen = self._seen or self._path.exists()
        return time.monotonic() + 60 * self._seen

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def test_initdb_may_take_minutes_and_that_is_said_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(embedded, "time", SlowMachine(folder / "postgres.new"))
    with Embedded(folder, on_slow=said.append) as database:
        assert run(database.url, "select 1") == [(1,)]
    assert said == ["a new cluster is being made; this may take minutes on a slow disk"]


# A server of somebody else ------------------------------------------------------------------------------


@pytest.fixture
def by_hand(folder: Path) -> Iterator[tuple[Path, str, "subprocess.Popen[bytes]"]]:
    """A data folder whose server somebody has started without this program, and its URL."""
    with Embedded(folder) as database:
        add_row(database.url)
        url = database.url
    cluster, binaries, port = folder / "postgres", find_binaries(), free_port()
    account = choose_account(folder, cluster, binaries)
    options = ["-p", str(port), "-c", "unix_socket_directories=", "-c", "listen_addresses=127.0.0.1"]
    command = [*account.prefix, str(binaries / "postgres"), "-D", str(cluster), *options]
    log = subprocess.DEVNULL
    with subprocess.Popen(command, cwd="/", stdout=log, stderr=log, **account.identity()) as server:
        try:
            assert until(lambda: status(folder) == "ready", 30)
            yield folder, f"{url.rpartition(':')[0]}:{port}/mobileye", server
        finally:
            server.send_signal(signal.SIGINT)


def status(folder: Path) -> str:
    pid_file = folder / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines() if pid_file.exists() else []
    return lines[7].strip() if len(lines) > 7 else ""


def test_a_cluster_that_somebody_else_has_started_is_refused_and_left_alone(
    by_hand: tuple[Path, str, "subprocess.Popen[bytes]"],
) -> None:
    folder, url, server = by_hand
    for _ in range(2):
        with pytest.raises(Misconfigured, match="somebody else has started it: stop it"), Embedded(folder):
            pass
        assert server.poll() is None and postmaster(folder) == server.pid
        assert count_rows(url) == 1
    server.send_signal(signal.SIGINT)
    server.wait(30)
    with Embedded(folder) as database:
        assert count_rows(database.url) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody says where a process works")
def test_a_copy_of_a_cluster_in_use_is_not_in_use(
    by_hand: tuple[Path, str, "subprocess.Popen[bytes]"],
) -> None:
    folder, _, server = by_hand
    other = folder.with_name("copy")
    with Embedded(other):
        pass
    (other / "postgres" / "postmaster.pid").write_text((folder / "postgres" / "postmaster.pid").read_text())
    with Embedded(other) as database:
        assert run(database.url, "select 1") == [(1,)] and postmaster(other) != server.pid


# A user without a name ------------------------------------------------------------------------------------


def enter_as_nameless(folder: Path, python: str) -> None:
    sys.executable = python
    "".encode("idna")  # Python loads it late, and this user may not read the tests' Python
    os.setgroups([])
    os.setresgid(NAMELESS, NAMELESS, NAMELESS)
    os.setresuid(NAMELESS, NAMELESS, NAMELESS)
    with Embedded(folder) as database:
        assert run(database.url, "select 1") == [(1,)]


def python_for(account: Account) -> str | None:
    """A Python that this user may run; the one of the tests may be in root's own folder."""
    for path in filter(None, (sys.executable, shutil.which("python3", path=os.defpath))):
        with suppress(OSError):
            subprocess.run([path, "-I", "-S", "-c", ""], check=True, **account.identity())
            return path
    return None


@pytest.mark.skipif(not IS_ROOT, reason="only root can be another user")
def test_a_user_without_a_name_makes_a_database(folder: Path) -> None:
    python = python_for(Account(NAMELESS, NAMELESS))
    nameless = Account(NAMELESS, NAMELESS, mapped().prefix)
    if python is None or not can_run(nameless, folder.parent, find_binaries()):
        pytest.skip("this system lets nobody make user namespaces, or run Python")
    folder.mkdir()
    os.chown(folder, NAMELESS, NAMELESS)
    for _ in range(2):  # the second time the cluster is there, and the server needs no namespace
        process = multiprocessing.get_context("fork").Process(target=enter_as_nameless, args=(folder, python))
        process.start()
        process.join()
        assert process.exitcode == 0
    assert (folder / "postgres").stat().st_uid == NAMELESS


def test_what_a_user_without_a_name_can_do_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NAMELESS)
    monkeypatch.setattr(accounts, "can_run", lambda *_: False)
    with pytest.raises(Misconfigured, match=f"for the user {NAMELESS}, which has no name: add it to"):
        choose_account(folder, folder / "postgres", find_binaries())
    (folder / "postgres").mkdir(parents=True)
    assert choose_account(folder, folder / "postgres", find_binaries()) == Account()
