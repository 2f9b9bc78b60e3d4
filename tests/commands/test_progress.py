"""Commands show their progress on a terminal, and write nothing more where there is none."""

from pathlib import Path

import pytest

from db.connection import Database
from tests.monitor.session import MAIN, session
from tests.support import Daemon, report, statuses


@pytest.fixture
def daemon(tmp_path: Path, database: Database) -> Daemon:
    daemon = Daemon(tmp_path, database.url)
    daemon.incoming.mkdir()
    daemon.failed.mkdir()
    for number in range(5):
        (daemon.failed / f"vehicles_status_{number}.json").write_bytes(statuses(report(number)))
    return daemon


@pytest.mark.parametrize(
    ("arguments", "shown", "printed"),
    [
        ("check incoming/failed/*.json", "/5", "incoming/failed/vehicles_status_4.json: would load, "),
        ("replay failed", "/5", "5 files: 5 loaded, 0 not"),
        ("verify", "vehicle_status_history other", " things do not add up"),
    ],
)
def test_a_bar_is_shown_and_gone_at_the_end(daemon: Daemon, arguments: str, shown: str, printed: str) -> None:
    environment = {**daemon.environment(), "TERM": "xterm-256color"}
    with session(daemon.folder, environment, 120, 40) as person:
        person.type(f"{MAIN} {arguments}\r")
        person.until_shown(printed)
        person.until_prompt()
        assert shown.encode() in person.raw and "━" in person.raw.decode()
        assert "━" not in person.text() and not person.is_cursor_hidden()


def test_output_that_goes_to_a_file_is_as_without_a_terminal(daemon: Daemon) -> None:
    plain = daemon.command("check", "incoming/failed/vehicles_status_1.json").stdout
    environment = {**daemon.environment(), "TERM": "xterm-256color"}
    with session(daemon.folder, environment) as person:
        person.type(f"{MAIN} check incoming/failed/vehicles_status_1.json > out\r")
        person.until_shown("━")
        person.until_prompt()
    assert (daemon.folder / "out").read_text() == plain


def test_elsewhere_nothing_is_written_beside_the_lines(daemon: Daemon) -> None:
    done = daemon.command("replay", "failed")
    assert done.stderr == "" and "━" not in done.stdout and "\x1b" not in done.stdout
