"""Waits for servers that accept and say nothing, or are frozen in the middle of an answer."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from db.connection import Database
from db.partitions import Partitions
from db.patience import WaitCancelled, ask, cancel, cut, within
from db.writer import Met, Writer
from processing.errors import DatabaseUnavailable
from tests.support import Server, running_server, until


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that may be frozen as a whole: that of the other tests goes on."""
    with running_server("fsync=off") as server:
        yield server
        server.stop(signal.SIGQUIT)


@pytest.fixture
def connection(server: Server) -> Iterator[Connection]:
    with closing(Database(server.url()).connect(autocommit=True)) as connection:
        yield connection


@pytest.fixture
def silent() -> Iterator[Database]:
    """A server that accepts and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield Database(f"host=127.0.0.1 port={listener.getsockname()[1]} dbname=x user=x connect_timeout=100")


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def sleep(connection: Connection) -> None:
    """Sleeps in the server until somebody ends that."""
    with suppress(psycopg2.Error), connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(1000)")


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def is_asleep(server: Server) -> bool:
    return bool(server.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))


def test_the_answer_or_the_error_comes_back() -> None:
    assert within(None, lambda: 42, lambda: None) == 42
    with pytest.raises(ZeroDivisionError):
        within(100, lambda: 1 // 0, lambda: None)


def test_a_server_that_says_nothing_keeps_nobody_who_wants_to_stop(silent: Database) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(WaitCancelled):
        silent.connect(is_cancelled=stop.is_set)


def test_signals_are_handled_while_a_server_says_nothing(silent: Database) -> None:
    """As Ctrl+C is, in the main thread."""
    threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,)).start()
    with pytest.raises(KeyboardInterrupt):
        silent.connect()


def test_a_frozen_backend_is_given_up_at_the_deadline(connection: Connection) -> None:
    def question() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    ask(connection, question)
    with frozen(connection.info.backend_pid):
        with pytest.raises(DatabaseUnavailable, match=r"it does not answer for 0\.5 s"):
            ask(connection, question, seconds=0.5)
        connection.close()


def test_a_statement_is_cancelled(server: Server, connection: Connection) -> None:
    asleep = in_thread(lambda: sleep(connection))
    until(lambda: is_asleep(server))
    cancel(connection)
    asleep.join(20)
    assert not asleep.is_alive() and not connection.closed


def test_a_server_that_takes_no_cancel_request_stops_no_thread(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.patience._CANCEL_SECONDS", 0.5)
    turns = 0

    def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            time.sleep(0.01)

    connection = Database(own_server.url()).connect(autocommit=True)
    asleep = in_thread(lambda: sleep(connection))
    until(lambda: is_asleep(own_server))
    assert own_server.process is not None
    with frozen(own_server.process.pid):
        in_thread(count)
        cancel(connection)
        asleep.join(20)
    assert not asleep.is_alive() and connection.closed and turns > 5


def test_a_frozen_backend_does_not_keep_who_abandons_a_transaction(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.writer._PATIENCE_SECONDS", 0.3)
    with ThreadPoolExecutor(1) as sender, frozen(connection.info.backend_pid):
        writer = Writer(connection, Partitions(Database("")), sender, Met())
        writer.keep_alive(0)
        writer.abandon()
        assert writer._sending is not None and writer._sending.done()


def test_what_is_cut_already_may_be_cut_again(connection: Connection) -> None:
    cut(connection)
    cut(connection)
    connection.close()
    cut(connection)
    cancel(connection)
