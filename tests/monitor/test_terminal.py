"""python main.py at a real terminal: what is on the screen, and that the terminal is as it was afterwards."""

import os
import pty
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest

from config import LogLevel
from db.connection import Database
from monitor import files_show
from monitor.event_log import EventLog
from monitor.files_show import FilesShow
from monitor.screen import Screen
from monitor.terminal import LIVE_VIEW_ENDED, Terminal
from processing.batch import Outcome
from service import events
from tests.monitor.session import MAIN, Session, session
from tests.monitor.test_event_log import RecordingLog
from tests.support import Daemon, detections, event, report, statuses, until

GOOD = statuses(report())

#: After a good file, a bad one and one with a reject.
PANEL = re.compile(
    r"""^── incoming → 127\.0\.0\.1:\d+/test_\w+ ─+ \d+ s ─
state     database ok   observer native   workers 0 of \d+ busy
total     2 files   1 row   0 duplicate files   1 reject   1 failed file
now       [\d.]+ files?/s   [\d.]+ rows?/s
backlog   none$""",
    re.MULTILINE,
)


@pytest.fixture
def daemon(tmp_path: Path, database: Database) -> Daemon:
    daemon = Daemon(tmp_path, database.url)
    daemon.incoming.mkdir()
    (tmp_path / ".env").touch()
    return daemon


@contextmanager
def at_terminal(
    daemon: Daemon,
    arguments: str = "",
    columns: int = 100,
    rows: int = 30,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Session]:
    """A person who has started the daemon."""
    others = ("NO_COLOR", "COLUMNS", "LINES")
    clean = {name: value for name, value in daemon.environment().items() if name not in others}
    with session(daemon.folder, {**clean, "TERM": "xterm-256color", **settings}, columns, rows) as person:
        person.type(f"{MAIN} {arguments}\r")
        yield person


def until_watching(person: Session) -> None:
    person.until_shown("database ok", 30)


def heads(person: Session) -> list[str]:
    """The first lines of panels on the screen."""
    return [line for line in person.lines() if line.startswith("── ")]


def test_the_screen_shows_lines_and_below_them_the_state(daemon: Daemon) -> None:
    with at_terminal(daemon) as person:
        until_watching(person)
        daemon.drop("vehicles_status_1.json", GOOD)
        daemon.drop("vehicles_status_2.json", b"[]")
        daemon.drop("vehicles_status_3.json", statuses({"vehicle_id": "x"}))
        until(lambda: PANEL.search("\n".join(person.lines())), 20, "the panel")
        shown = person.lines()
    assert re.search(r"^\d\d:\d\d:\d\d loaded vehicles_status_1.json: 1 row$", "\n".join(shown), re.M)
    assert any("warning failed vehicles_status_2.json: expected " in line for line in shown)
    assert any("warning loaded vehicles_status_3.json: 0 rows, 1 rejected (first: " in line for line in shown)


def test_ctrl_c_leaves_a_clean_screen_and_two_lines(daemon: Daemon) -> None:
    with at_terminal(daemon) as person:
        until_watching(person)
        assert person.is_cursor_hidden()
        daemon.drop("vehicles_status_1.json", GOOD)
        person.until_shown("loaded vehicles_status_1.json")
        person.type("\x03")
        person.until_prompt()
        assert not person.is_cursor_hidden() and heads(person) == []
        assert person.modes() == person.modes_at_prompt
        shown = person.lines()
    assert re.fullmatch(r"stopped after \d+ s: 1 file loaded, 1 row", shown[-3])
    assert shown[-2] == "no file waits; python main.py status shows all totals"
    assert not any("database ok" in line or "^C" in line for line in shown)


def until_panel(person: Session, columns: int) -> None:
    def fits() -> bool:
        return [len(head) for head in heads(person)] == [columns - 1]

    until(fits, 10, f"one panel of {columns} columns")


@pytest.mark.parametrize("columns", [40, 60, 140])
def test_another_width_shows_one_panel_that_fits(daemon: Daemon, columns: int) -> None:
    with at_terminal(daemon) as person:
        until_watching(person)
        for width, rows in ((columns, 30), (100, 12), (columns, 20)):
            person.resize(width, rows)
            until_panel(person, width)
        person.type("\x03")
        person.until_prompt()
        assert heads(person) == []


def test_a_terminal_too_small_for_a_panel_shows_lines(daemon: Daemon) -> None:
    with at_terminal(daemon, columns=100, rows=5) as person:
        person.until_shown("watching folder=")
        daemon.drop("vehicles_status_1.json", GOOD)
        person.until_shown("loaded vehicles_status_1.json")
        assert heads(person) == [] and not person.is_cursor_hidden()


def test_after_ctrl_z_the_screen_is_the_shell_s_until_fg(daemon: Daemon) -> None:
    with at_terminal(daemon) as person:
        until_watching(person)
        person.type("\x1a")
        person.until_shown("Stopped")
        person.until_prompt()
        assert heads(person) == [] and not person.is_cursor_hidden()
        daemon.drop("vehicles_status_1.json", GOOD)
        person.type("fg\r")
        until(lambda: heads(person), 10, "the panel is back")
        person.until_shown("loaded vehicles_status_1.json")
        assert person.is_cursor_hidden()
        person.type("\x1a")
        person.until_prompt()
        person.type("bg\r")
        daemon.drop("vehicles_status_2.json", statuses(report(2)))
        person.until_shown("loaded vehicles_status_2.json")
        assert heads(person) == [] and not person.is_cursor_hidden()
        person.type("fg\r")
        until(lambda: heads(person), 10, "the panel is back")
        person.type("\x03")
        person.until_shown("stopped after")
        person.until_prompt()


def test_many_files_are_summed_up_but_a_failure_has_its_line(daemon: Daemon) -> None:
    for number in range(1500):
        daemon.drop(f"vehicles_status_{number}.json", statuses(report(vehicle=f"v{number}")))
    daemon.drop("vehicles_status_bad.json", b"[]")
    with at_terminal(daemon) as person:
        person.until_shown("1,500 files   1,500 rows", 60)
        person.type("\x03")
        person.until_prompt()
        lines = person.all_lines()
    found = [re.fullmatch(r"[\d:]+ ([\d,]+) files loaded, [\d,]+ rows", line) for line in lines]
    sums = [int(one[1].replace(",", "")) for one in found if one]
    named = [line for line in lines if " loaded vehicles_status_" in line]
    assert sum(sums) + len(named) == 1500 and len(named) < 500
    assert len([line for line in lines if " failed vehicles_status_bad.json: " in line]) == 1


def test_a_large_file_has_a_bar(daemon: Daemon) -> None:
    many = (event(number % 3600, ("cars", 1), vehicle=f"v{number}") for number in range(150_000))
    daemon.drop("objects_detection_1.json", detections(*many))
    bar = r"^objects_detection_1.json +[━╸╺]+ +\d+ % +\d+ of \d+ MB +[\d,]+ rows/s"
    with at_terminal(daemon, columns=120) as person:
        until(lambda: re.search(bar, person.text(), re.MULTILINE), 60, "a bar")
        person.until_shown("loaded objects_detection_1.json: 150,000 rows", 60)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [("--plain", {}), ("", {"LOG_FORMAT": "text"}), ("", {"LOG_FORMAT": "json"}), ("", {"TERM": "dumb"})],
)
def test_lines_are_plain_where_they_are_asked_for(
    daemon: Daemon, arguments: str, settings: dict[str, str]
) -> None:
    with at_terminal(daemon, f"--once {arguments}", 250, settings=settings) as person:
        person.until_shown("stopped", 30)
        person.until_prompt()
        begin = person.raw.index(b"watching")
        assert b"\x1b" not in person.raw[begin : person.raw.index(b"stopped")]


def test_colour_can_be_switched_off(daemon: Daemon) -> None:
    daemon.drop("vehicles_status_2.json", b"[]")
    for no_colour in ("", "1"):
        settings = {"NO_COLOR": no_colour} if no_colour else {}
        with at_terminal(daemon, "--once", settings=settings) as person:
            person.until_shown("stopped", 30)
            person.until_prompt()
            colours = re.findall(rb"\x1b\[[\d;]*3\dm", person.raw)
        assert bool(colours) == (not no_colour)
        (daemon.failed / "vehicles_status_2.json").rename(daemon.incoming / "vehicles_status_2.json")


def test_a_terminal_that_takes_nothing_holds_up_nothing(daemon: Daemon) -> None:
    with at_terminal(daemon) as person:
        until_watching(person)
        person.type("\x13")
        for number in range(300):
            daemon.drop(f"vehicles_status_{number}.json", statuses(report(vehicle=f"v{number}")))
        daemon.until_empty()
        person.type("\x11")
        person.until_shown("300 files   300 rows")
        assert len(heads(person)) == 1


def test_an_error_before_the_first_line_is_a_sentence(daemon: Daemon) -> None:
    with at_terminal(daemon, settings={"FAILED_FOLDER": "/dev/shm"}) as person:
        person.until_shown("has to be on the same file system")
        person.until_prompt()
        assert not person.is_cursor_hidden() and b"\x1b[?25l" not in person.raw


# In this process ----------------------------------------------------------------------------------


@pytest.fixture
def screen() -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    yield Screen(theirs)
    os.close(ours)
    os.close(theirs)


def test_an_error_of_drawing_ends_the_view_and_nothing_else(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such colour")

    monkeypatch.setattr(files_show, "panel", fail)
    monkeypatch.setattr(Screen, "size", lambda _: (80, 24))
    log = RecordingLog()
    view = Terminal(screen, EventLog(log), FilesShow(LogLevel.INFO))  # type: ignore[arg-type]
    view.start()
    view.write(events.FileRecovered("a.json"))
    until(lambda: log.lines)
    view.write(events.FileLoaded(Outcome("b.json", "loaded")))
    view.close()
    names = [name for _, name, _ in log.lines]
    assert names == [LIVE_VIEW_ENDED, "file recovered", "loaded"]
    assert log.lines[0][2] == {"reason": "ValueError: no such colour"}


def test_a_terminal_that_is_gone_ends_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    log = RecordingLog()
    view = Terminal(Screen(theirs), EventLog(log), FilesShow(LogLevel.INFO))  # type: ignore[arg-type]
    os.close(ours)
    view.start()
    view.write(events.FileRecovered("a.json"))
    until(lambda: log.lines)
    view.close()
    os.close(theirs)
    assert log.lines[0][1] == LIVE_VIEW_ENDED
