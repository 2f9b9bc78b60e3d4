"""Writers that the daemon can't see: of another user, or on a network file system."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.connection import Database
from monitor.event_log import LINES
from service.events import WritersHidden
from tests.processing.support import give_to_other_user
from tests.support import ROOT, Daemon, Unprivileged, report, statuses, until

NAME = "vehicles_status_1.json"
HIDDEN_WRITERS = LINES[WritersHidden][1]
GOOD = statuses(report(1))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")


@pytest.fixture
def unprivileged(tmp_path: Path, database: Database) -> Iterator[Daemon]:
    """Its quiet time is longer than any pause of the tests' writers."""
    daemon = Unprivileged(tmp_path, database.url, QUIET_SECONDS=2)
    daemon.incoming.mkdir()
    yield daemon
    if daemon.process is not None:
        daemon.stop()


def history(daemon: Daemon) -> int:
    ((count,),) = daemon.rows("SELECT count(*) FROM mobileye_data.vehicle_status_history")
    return int(count)


def claimed(daemon: Daemon) -> list[Path]:
    return list((daemon.incoming / ".claimed").glob("*/*"))


@needs_root
def test_what_a_writer_of_another_user_adds_to_a_loaded_file_is_loaded(unprivileged: Daemon) -> None:
    """It never closes the file, and writes again when the rows of what it wrote first can be seen."""
    unprivileged.start()
    with (unprivileged.incoming / NAME).open("wb", buffering=0) as file:
        give_to_other_user(unprivileged.incoming / NAME)
        file.write(GOOD)
        until(lambda: history(unprivileged) == 1)
        file.seek(-2, os.SEEK_END)
        file.write(b"," + statuses(report(2)).partition(b"[")[2])
        until(lambda: history(unprivileged) == 2)
        unprivileged.until_empty()
    until(lambda: not claimed(unprivileged))
    assert unprivileged.stop() == 0
    assert unprivileged.log().count(HIDDEN_WRITERS) == 1 and " file recovered " not in unprivileged.log()
    states = unprivileged.rows("SELECT state, deliveries FROM mobileye_data.ingested_files")
    assert states == 2 * [("loaded", 1)]


@needs_root
def test_a_file_of_another_user_is_gone_when_the_daemon_has_ended(unprivileged: Daemon) -> None:
    unprivileged.start()
    give_to_other_user(unprivileged.drop(NAME, GOOD))
    until(lambda: history(unprivileged) == 1)
    assert unprivileged.stop() == 0
    assert unprivileged.left() == [] and claimed(unprivileged) == []


@pytest.fixture
def remote(tmp_path: Path, database: Database) -> Daemon:
    path = f"{ROOT / 'tests' / 'commands' / 'remote'}:{ROOT}"
    return Daemon(tmp_path, database.url, PYTHONPATH=path, QUIET_SECONDS=0.5)


def test_a_network_file_system_without_leases_is_loaded_from(remote: Daemon) -> None:
    for number in range(1000):
        remote.drop(f"vehicles_status_{number}.json", statuses(report(number)))
    assert remote.start("--once", wait=False).wait() == 0
    assert history(remote) == 1000 and remote.left() == [] and claimed(remote) == []
    assert remote.log().count(HIDDEN_WRITERS) == 1


def test_once_ends_with_1_if_a_file_was_written_to_when_it_was_loaded(remote: Daemon) -> None:
    path = remote.drop(NAME, GOOD)
    with path.open("ab") as file:
        remote.start("--once", wait=False)
        until(lambda: claimed(remote))
        file.write(b" ")
        file.flush()
        assert remote.wait() == 1
    assert remote.left() == [NAME] and " waiting=1 " in remote.log().splitlines()[-1]
