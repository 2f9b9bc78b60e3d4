"""Fixtures: one server for all tests, a database and a daemon for each."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import db.chunk
from db import schema
from db.connection import Database
from tests.s3_proxy import S3Proxy, running_proxy
from tests.seaweed import Seaweed, running_seaweed
from tests.support import Daemon, Server, running_server, stopping

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.kafka import Broker


def pytest_configure() -> None:
    """What a shell starts in the background is deaf to Ctrl+C, and so would be all that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    # The tests kill processes, never the machine.
    with running_server("fsync=off") as server:
        yield server


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Seaweed]:
    with running_seaweed() as seaweed:
        yield seaweed


@pytest.fixture
def own_seaweed() -> Iterator[Seaweed]:
    """A server that a test may stop."""
    with running_seaweed() as seaweed:
        yield seaweed


@pytest.fixture
def proxy(seaweed: Seaweed) -> Iterator[S3Proxy]:
    """The S3 server behind a proxy, which can refuse and change what is asked and answered."""
    with running_proxy(seaweed.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def broker() -> "Iterator[Broker]":
    """Apache Kafka; a test has topics of its own."""
    from tests.kafka import running_broker

    with running_broker() as broker:
        yield broker


@pytest.fixture
def empty_database(server: Server) -> Iterator[Database]:
    with server.database() as database:
        yield database


@pytest.fixture
def database(empty_database: Database) -> Database:
    """A database with our tables."""
    connection = empty_database.connect()
    schema.apply(connection)
    connection.close()
    return empty_database


@pytest.fixture
def daemon(tmp_path: Path, database: Database) -> Iterator[Daemon]:
    """A daemon that is not started yet."""
    with stopping(Daemon(tmp_path, database.url)) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Debian's Chromium without a window."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several thousand rows are then several chunks."""
    monkeypatch.setattr(db.chunk, "CHUNK_ROWS", 10_000)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """CI has all that a test may lack elsewhere: there a test that is left out is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if "LEAVE_OUT_NO_TEST" in os.environ and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
