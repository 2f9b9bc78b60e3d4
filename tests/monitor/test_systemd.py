"""What systemd hears of a service of Type=notify."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from db.connection import Database
from monitor.stream_systemd import StreamServiceManager
from monitor.systemd import ServiceManager
from service import events
from service.events import Resource
from service.stream_events import ConsumerStarted, ConsumerStopped
from tests.support import Daemon, free_port, report, statuses, until


class Manager:
    """A service manager that listens."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(20)
        self.heard: list[str] = []

    def hear(self) -> list[str]:
        """The lines of the next message."""
        lines = self.socket.recv(4096).decode().splitlines()
        self.heard += lines
        return lines

    def hear_until(self, line: str) -> None:
        while line not in self.hear():
            pass


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    with closing(manager.socket):
        yield manager


def test_a_daemon_is_ready_when_it_watches_and_stops_when_it_is_asked(
    tmp_path: Path, database: Database, manager: Manager
) -> None:
    daemon = Daemon(tmp_path / "daemon", database.url, NOTIFY_SOCKET=tmp_path / "notify").start(wait=False)
    manager.hear_until("READY=1")
    assert manager.heard == ["READY=1", f"STATUS=watching {daemon.incoming}"]
    manager.hear_until("WATCHDOG=1")
    daemon.drop("vehicles_status_1.json", statuses(report()))
    daemon.until_empty()
    assert daemon.stop() == 0
    manager.hear_until("STOPPING=1")


def test_a_daemon_that_waits_for_its_database_says_so_and_is_not_ready(
    tmp_path: Path, manager: Manager
) -> None:
    nowhere = f"postgresql://tester@127.0.0.1:{free_port()}/postgres"
    daemon = Daemon(tmp_path / "daemon", nowhere, NOTIFY_SOCKET=tmp_path / "notify").start(wait=False)
    (line,) = manager.hear()
    assert line.startswith("STATUS=waiting for the database: ")
    daemon.stop()
    manager.hear_until("STOPPING=1")
    assert "READY=1" not in manager.heard


def test_the_watchdog_hears_of_the_main_loop_every_ten_seconds_at_most(
    tmp_path: Path, manager: Manager
) -> None:
    now = 1000.0
    notifier = ServiceManager(str(tmp_path / "notify"), lambda: now)
    for _ in range(25):
        notifier.note(events.LoopTurned())
        now += 1
    notifier.note(events.Stopped({}))
    manager.hear_until("STOPPING=1")
    assert manager.heard.count("WATCHDOG=1") == 3


def test_an_outage_is_the_status_until_it_ends_and_its_reason_is_one_line(
    tmp_path: Path, manager: Manager
) -> None:
    notifier = ServiceManager(str(tmp_path / "notify"))
    notifier.note(events.Started("in", "native", 2, None, "data", None))
    notifier.note(events.OutageBegan(Resource.DATABASE, "away\nREADY=0"))
    notifier.note(events.OutageEnded(Resource.DATABASE, 1.0))
    assert [manager.hear() for _ in range(3)] == [
        ["READY=1", "STATUS=watching in"],
        ["STATUS=waiting for the database: away\\nREADY=0"],
        ["STATUS=watching in"],
    ]


def test_a_consumer_says_what_it_reads(tmp_path: Path, manager: Manager) -> None:
    notifier = StreamServiceManager(str(tmp_path / "notify"))
    notifier.note(ConsumerStarted("h:9092", "g", ["a", "b"], None, "data", None))
    notifier.note(events.OutageBegan(Resource.BROKER, "away"))
    notifier.note(events.OutageEnded(Resource.BROKER, 1.0))
    notifier.note(events.LoopTurned())
    notifier.note(ConsumerStopped(1, 2, 3))
    assert [manager.hear() for _ in range(5)] == [
        ["READY=1", "STATUS=consuming a, b in the group g"],
        ["STATUS=waiting for Kafka: away"],
        ["STATUS=consuming a, b in the group g"],
        ["WATCHDOG=1"],
        ["STOPPING=1", "STATUS=stopped"],
    ]


def test_an_abstract_address_is_understood() -> None:
    with closing(Manager(f"\0mobileye-test-{free_port()}").socket) as listener:
        name = listener.getsockname().decode().replace("\0", "@")
        ServiceManager(name).note(events.LoopTurned())
        listener.settimeout(20)
        assert listener.recv(100) == b"WATCHDOG=1"


def test_a_manager_that_is_gone_or_does_not_read_stops_nothing(tmp_path: Path, manager: Manager) -> None:
    ServiceManager(str(tmp_path / "nobody")).note(events.LoopTurned())
    notifier = ServiceManager(str(tmp_path / "notify"))
    for _ in range(5000):
        notifier.note(events.Stopped({}))
    until(lambda: manager.hear())
