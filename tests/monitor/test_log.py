"""Log lines: one for each outcome, easy to parse, safe from forged file names and leaked content."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.processors import LogfmtRenderer

from config import LogFormat, Settings
from db.connection import Database
from monitor.log import adopt_libraries, logfmt, make_log, open_log
from tests.support import ROOT, Daemon, detections, event, report, statuses

SECRET = "attack at dawn"
FORGED = "2026-01-01T00:00:00Z info loaded file=forged.json"
NAMES = [
    f"vehicles_status_\n{FORGED.replace('/', '')}.json",
    "vehicles_status_\x1b[31mred\r.json",
    os.fsdecode(b"vehicles_status_\xff\xfe.json"),
    'vehicles_status_"quoted" a=b \\n.json',
    "vehicles_status_\u202egnorw\u2028.json",
    "vehicles_status_" + "n" * 234 + ".json",
]


@pytest.fixture(scope="module", params=list(LogFormat))
def lines(
    request: pytest.FixtureRequest, server: object, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, object]]:
    """The parsed log lines of a daemon after good, bad and badly named files."""
    with server.database() as database:  # type: ignore[attr-defined]
        daemon = Daemon(
            tmp_path_factory.mktemp("log"), database.url, LOG_FORMAT=request.param.value, SETTLE_SECONDS=0.1
        )
        for number, name in enumerate(NAMES):
            daemon.drop(name, statuses(report(vehicle=f"v{number}")))
        daemon.drop(
            "objects_detection_1.json", detections(event(), {"vehicle_id": SECRET, "detections": SECRET})
        )
        daemon.drop("vehicles_status_again.json", statuses(report(vehicle="v0")))
        for number, bad in enumerate(faults()):
            daemon.drop(f"vehicles_status_bad{number}.json", bad)
        assert daemon.start("--once", wait=False).wait() == 1
        raw = daemon.log()
        assert SECRET not in raw and database.url.split(":")[2].partition("@")[0] not in raw
        assert raw.replace("\n", "").isprintable()
        parse = parse_text if request.param is LogFormat.TEXT else msgspec.json.decode
        return [parse(line) for line in raw.splitlines()]


def faults() -> list[bytes]:
    """Returns contents that may make a parser quote what it reads."""
    good = statuses(report(vehicle=SECRET))
    return [
        good[:-4],
        good + SECRET.encode(),
        good.replace(b'"driving"', b"driving " + SECRET.encode()),
        f'{{"{SECRET}"'.encode(),
        SECRET.encode(),
        good.replace(b'"status"', b'"\xff"'),
    ]


_LINE = re.compile(r"(\S+) (\w+) +((?:[^= ]+ )*[^= ]+)(?: |$)(.*)")
_PAIR = re.compile(r'([a-z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^ "]*))(?: |$)')


def parse_text(line: str) -> dict[str, object]:
    """Parses `TIME LEVEL EVENT key=value …`, where a value with blanks or quotes is quoted."""
    match = _LINE.fullmatch(line)
    assert match, line
    time, level, event, rest = match.groups()
    assert "".join(pair[0] for pair in _PAIR.finditer(rest)) == rest, line
    pairs = {key: unescaped(quoted) or plain for key, quoted, plain in _PAIR.findall(rest)}
    return {"timestamp": time, "level": level, "event": event, **pairs}


def unescaped(quoted: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], quoted)


def of(lines: list[dict[str, object]], event: str) -> list[dict[str, object]]:
    return [line for line in lines if line["event"] == event]


def test_every_line_has_a_time_a_level_and_an_event(lines: list[dict[str, object]]) -> None:
    for line in lines:
        assert str(line["timestamp"]).endswith("Z") and line["level"] in ("info", "warning", "error")
        assert line["event"] in (
            "new database",
            "watching",
            "database",
            "database runs without fsync",
            "query it",
            "loaded",
            "duplicate",
            "failed",
            "waiting",
            "stopped",
        )


def test_each_file_has_one_line_for_its_outcome(lines: list[dict[str, object]]) -> None:
    counts = {event: len(of(lines, event)) for event in ("loaded", "duplicate", "failed", "stopped")}
    assert counts == {"loaded": len(NAMES) + 1, "duplicate": 1, "failed": len(faults()), "stopped": 1}


def test_a_line_shows_what_became_of_the_records(lines: list[dict[str, object]]) -> None:
    (line,) = [line for line in of(lines, "loaded") if line["file"] == "objects_detection_1.json"]
    counts = {key: str(line[key]) for key in ("kind", "rows", "inserted", "duplicate", "rejected")}
    assert counts == {
        "kind": "objects_detection",
        "rows": "3",
        "inserted": "2",
        "duplicate": "0",
        "rejected": "1",
    }
    assert float(str(line["seconds"])) >= 0


def test_a_failure_shows_where_the_file_is_and_why(lines: list[dict[str, object]]) -> None:
    for line in of(lines, "failed"):
        assert line["level"] == "warning" and line["reason"]
        assert line["moved_to"] == f"incoming/failed/{line['file']}"


def test_no_name_forges_a_line(lines: list[dict[str, object]]) -> None:
    assert not any(line.get("file") == "forged.json" for line in lines)
    assert any("forged.json" in str(line["file"]) for line in of(lines, "loaded"))


def test_names_are_logged_with_unprintable_characters_escaped(lines: list[dict[str, object]]) -> None:
    logged = {str(line["file"]) for line in of(lines, "loaded")}
    assert {
        "vehicles_status_\\x1b[31mred\\r.json",
        "vehicles_status_\\xff\\xfe.json",
        NAMES[3],
        NAMES[5],
    } <= logged


# The log itself -----------------------------------------------------------------------------------


def test_a_log_that_can_not_be_written_does_not_stop_the_loading(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url)
    for number in range(3):
        daemon.drop(f"vehicles_status_{number}.json", statuses(report(vehicle=f"v{number}")))
    with open("/dev/full", "w") as full:
        command = [sys.executable, str(ROOT / "main.py"), "--once"]
        done = subprocess.run(command, cwd=tmp_path, env=daemon.environment(), stdout=full, stderr=full)
    assert done.returncode in (0, 120), "120: Python could not flush standard error"
    assert daemon.left() == []


@pytest.mark.parametrize("is_read_at_last", [False, True])
def test_a_log_that_nobody_reads_stops_neither_loading_nor_the_end(
    tmp_path: Path, database: Database, is_read_at_last: bool
) -> None:
    daemon = Daemon(tmp_path, database.url)
    for number in range(100):
        daemon.drop(f"vehicles_status_{number}.json", statuses(report(vehicle=f"v{number}")))
    command = [sys.executable, str(ROOT / "main.py")]
    with subprocess.Popen(
        command, cwd=tmp_path, env=daemon.environment(), stderr=subprocess.PIPE, text=True, pipesize=4096
    ) as process:
        assert process.stderr is not None
        daemon.until_empty()  # its 100 lines are four times what the pipe holds
        process.terminate()
        if is_read_at_last:
            lines = process.stderr.read().splitlines()
            assert (
                " stopped loaded=100 " in lines[-1] and sum(" loaded file=" in line for line in lines) == 100
            )
        assert process.wait(30) == 0


def test_an_error_that_ends_the_daemon_is_a_line_of_the_log(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, "postgresql://127.0.0.1:1/d", LOG_FORMAT="json")
    daemon.incoming.touch()
    assert daemon.start(wait=False).wait() == 2
    line = msgspec.json.decode(daemon.log())
    assert line.pop("timestamp")
    reason = f"can't make the folder {daemon.incoming}: File exists"
    assert line == {"level": "error", "event": "ended", "reason": reason, "code": 2}


def test_an_error_after_the_first_line_has_a_time(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url).start()
    daemon.rows("DROP SCHEMA mobileye_data CASCADE")
    daemon.rows("CREATE VIEW public.nothing AS SELECT 1")
    daemon.drop("vehicles_status_1.json", statuses(report()))
    assert daemon.wait() == 2
    last = parse_text(daemon.log().splitlines()[-1])
    assert (last["level"], last["event"], last["code"]) == ("error", "ended", "2")


@pytest.mark.parametrize(("level", "count"), [("info", 3), ("WARNING", 2), ("error", 1)])
def test_lines_below_the_level_are_left_out(
    capfd: pytest.CaptureFixture[str], level: str, count: int
) -> None:
    with open_log(LogFormat.TEXT, Settings.model_validate({"log_level": level}).log_level) as log:
        log.info("one")
        log.warning("two")
        log.error("three")
    assert capfd.readouterr().err.count("\n") == count


@pytest.fixture
def root_log() -> Iterator[None]:
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers


@pytest.mark.usefixtures("root_log")
def test_a_warning_of_a_library_becomes_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    adopt_libraries(make_log(LogFormat.JSON).warning)
    logging.getLogger("watchdog.x").warning("lost %s\nevents", 3)
    logging.getLogger("watchdog.x").info("nothing new")
    (line,) = capsys.readouterr().err.splitlines()
    logged = msgspec.json.decode(line)
    assert (logged["level"], logged["library"], logged["message"]) == (
        "warning",
        "watchdog.x",
        "lost 3\nevents",
    )


@pytest.mark.parametrize("log_format", list(LogFormat))
def test_a_value_with_a_newline_stays_in_its_line(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    make_log(log_format).info("event", reason=f"a\n{FORGED}", quoted='a "b" c=d')
    assert capsys.readouterr().err.count("\n") == 1


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text('aß\\"\n= ')


@given(st.dictionaries(st.sampled_from(["file", "rows", "reason"]), VALUES))
def test_fields_are_formatted_as_structlog_formats_them(fields: dict[str, Any]) -> None:
    assert logfmt(fields) == LogfmtRenderer(bool_as_flag=False)(None, "", dict(fields))
