"""The dashboard command starts, refuses and ends as a user expects."""

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.error import HTTPError

import psutil
import pytest

from commands import dashboard
from config import Settings, read_address
from db.connection import Database
from monitor.dashboard.server import bind
from processing.errors import DatabaseUnavailable, Misconfigured
from service.reading import Reading
from tests.monitor.dashboard.support import Dashboard, serving
from tests.support import Daemon, Server, free_port, until

TOKEN = "the-token-of-a-test"


def test_it_says_where_it_is_and_ctrl_c_ends_it_with_code_0(daemon: Daemon) -> None:
    with serving(daemon) as served:
        assert f"The dashboard is at {served.url}/; Ctrl+C ends it." in served.log()
        assert served.stop(signal.SIGINT) == 0
        assert served.log().count("\n") == 1


def test_sigterm_ends_it_with_code_0(daemon: Daemon) -> None:
    with serving(daemon) as served:
        assert served.stop(signal.SIGTERM) == 0


def test_it_ends_at_once_while_the_database_is_frozen(daemon: Daemon, server: Server) -> None:
    with serving(daemon) as served:
        postgres = psutil.Process(server.process.pid)  # type: ignore[union-attr]
        family = [postgres, *postgres.children(recursive=True)]
        for process in family:
            process.suspend()
        try:
            assert served.stop(signal.SIGINT) == 0
        finally:
            for process in family:
                process.resume()


def test_an_address_in_use_is_one_sentence(daemon: Daemon) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        done = daemon.command("dashboard", "--address", place)
    assert done.returncode == 2
    assert done.stderr == f"error: the address {place} can't be used: Address already in use\n"


def test_beyond_this_machine_it_needs_a_token(daemon: Daemon) -> None:
    place = f"0.0.0.0:{free_port()}"
    done = daemon.command("dashboard", "--address", place)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: the address {place} is open to other machines: set DASHBOARD_TOKEN, or use 127.0.0.1\n"
    )


@pytest.mark.parametrize(
    ("host", "is_open"),
    [("127.0.0.1", False), ("localhost", False), ("[::1]", False), ("0.0.0.0", True), ("[::]", True)],
)
def test_an_address_is_open_to_other_machines_or_not(host: str, is_open: bool) -> None:
    address = read_address(f"{host}:{free_port()}")
    bind(address, has_token=True).close()
    if is_open:
        with pytest.raises(Misconfigured, match="open to other machines"):
            bind(address, has_token=False)
    else:
        bind(address, has_token=False).close()


@pytest.mark.parametrize("text", ["8090", "127.0.0.1", ":8090", "127.0.0.1:99999"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match=f"the address {text}: it should be HOST:PORT"):
        dashboard.run(Settings(), text, print)


def test_a_host_that_is_not_there_is_refused() -> None:
    with pytest.raises(Misconfigured, match="there is no host of this name"):
        bind(read_address("no-such-host.invalid:8090"), has_token=True)


def test_a_short_token_is_refused_and_not_shown(daemon: Daemon) -> None:
    daemon.set(DASHBOARD_TOKEN="secret")
    done = daemon.command("dashboard")
    assert done.returncode == 2
    assert "DASHBOARD_TOKEN" in done.stderr and "secret" not in done.stderr


def test_the_token_is_needed_and_logged_nowhere(daemon: Daemon) -> None:
    served = Dashboard(daemon, DASHBOARD_TOKEN=TOKEN).start(wait=False)
    try:
        until(lambda: "Ctrl+C" in served.log(), 90)
        until(served.answers)
        with pytest.raises(HTTPError, match="401"):
            served.get("/")
        for path in (f"/nowhere?token={TOKEN}", "/fleet?token=another-token"):
            with pytest.raises(HTTPError, match=r"40[14]"):
                served.get(path)
        command_lines = [
            " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
        ]
        assert served.stop() == 0
    finally:
        if served.process is not None:
            served.stop(signal.SIGKILL)
    assert TOKEN not in served.log() + "".join(command_lines)


@pytest.mark.parametrize("package", ["nicegui", "pandas", "py_mini_racer"])
@pytest.mark.parametrize("command", ["dashboard", "report"])
def test_a_missing_package_is_one_sentence(daemon: Daemon, command: str, package: str) -> None:
    """A module that can't be imported stands for one that is not installed."""
    hidden = daemon.folder / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(f"import sys; sys.modules[{package!r}] = None\n")
    daemon.set(PYTHONPATH=hidden)
    needs = {"dashboard": {"nicegui", "pandas"}, "report": {"nicegui", "pandas", "py_mini_racer"}}[command]
    words = [command] if package in needs else ["dashboard", "--address", "no address"]
    done = daemon.command(*words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    missing = f"error: the package {package} is missing: pip install -r requirements/dashboard.txt\n"
    assert (done.stderr == missing) == (package in needs)


def test_its_sessions_can_change_nothing(database: Database) -> None:
    settings = Settings(database_url=database.url)
    with Reading(settings, lambda: False) as reading, pytest.raises(DatabaseUnavailable, match="read-only"):
        reading.ask(lambda connection: connection.cursor().execute("CREATE TABLE x ()"))


def test_a_question_that_takes_too_long_is_given_up(database: Database) -> None:
    with Reading(Settings(database_url=database.url), lambda: False, seconds=0.2) as reading:
        with pytest.raises(DatabaseUnavailable, match="no answer within"):
            reading.ask(lambda connection: connection.cursor().execute("SELECT pg_sleep(60)"))
        assert reading.ask(lambda connection: connection.info.dbname) in database.url


def test_questions_of_many_threads_share_a_few_connections(database: Database) -> None:
    pids = set()
    with (
        Reading(Settings(database_url=database.url), lambda: False) as reading,
        ThreadPoolExecutor(16) as pool,
    ):
        for pid in pool.map(lambda _: reading.ask(lambda asked: asked.info.backend_pid), range(200)):
            pids.add(pid)
    assert 1 <= len(pids) <= 3
