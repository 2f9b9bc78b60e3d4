"""Names that are not UTF-8, and terminals that can't show all characters, are no reason for a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import json

from db.connection import Database
from tests.support import ROOT, Daemon, detections, drop, event, report, statuses

#: What a user may have set, or a service manager may leave out.
TERMINALS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "C as Python has it": {"LC_ALL": "C"},
}

#: A folder and two files with names that are not UTF-8, and one whose name ASCII does not have.
FOLDER = b"in\xff"
GOOD, BAD, OTHER = (
    b"vehicles_status_\xe9.json",
    b"vehicles_status_\xfe.json",
    "objects_detection_東.json".encode(),
)


@pytest.fixture(params=TERMINALS)
def place(request: pytest.FixtureRequest, tmp_path: Path, database: Database) -> Daemon:
    """A daemon with a folder whose path is not UTF-8, and files in it."""
    watched = tmp_path / os.fsdecode(FOLDER)
    watched.mkdir()
    daemon = Daemon(tmp_path, database.url, WATCH_FOLDER=watched, **TERMINALS[request.param])
    daemon.incoming, daemon.failed = watched, watched / "failed"
    for name, content in (
        (GOOD, statuses(report(1, "größer"), {"vehicle_id": "東京"})),
        (BAD, b"{}"),
        (OTHER, detections(event())),
    ):
        drop(watched, os.fsdecode(name), content)
    (watched / os.fsdecode(b"\xf0")).touch()
    return daemon


def run(daemon: Daemon, *arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(ROOT / "main.py"), *arguments]
    done = subprocess.run(
        command, cwd=daemon.folder, env=daemon.environment(), capture_output=True, timeout=60
    )
    assert b"Traceback" not in done.stderr and b"Error" not in done.stderr, done.stderr.decode(
        errors="replace"
    )
    return done


def test_no_command_ends_with_a_traceback(place: Daemon) -> None:
    assert run(place, "status").returncode == 0
    assert run(place, "--once").returncode == 1
    assert not {os.fsencode(name) for name in os.listdir(place.incoming)} & {GOOD, BAD, OTHER}
    failed = os.path.join(os.fsencode(place.failed), BAD)
    for arguments in (
        ("status",),
        ("status", "--json"),
        ("verify",),
        ("check", failed, b"\xff/nowhere.json"),
        ("replay", "failed", failed),
        ("replay", "failed", "--dismiss", BAD),
        ("replay", "rejected", "--file", GOOD),
        ("replay", "rejected", "--edited", b"\xff.json"),
        ("demo", "--rate", "0", "--count", "1"),
        ("url",),
        ("sql", "select * from open_rejects"),
        ("sql", b"select '\\xff" + b"\xff'"),
        ("sql", "--write", "do 'begin raise ''größer 東京''; end'"),
        ("bogus", b"\xff"),
        ("--help",),
    ):
        run(place, *arguments)


def test_values_are_whole_in_every_terminal(place: Daemon) -> None:
    run(place, "--once")
    statement = "select status, '東京' as größe from vehicle_status"
    assert run(place, "sql", statement, "--csv").stdout.decode() == "status,größe\ngrößer,東京\n"
    assert '"größe": "東京"' in run(place, "sql", statement, "--json").stdout.decode()
    shown = json.decode(run(place, "status", "--json").stdout)
    assert "objects_detection_東.json" in [file["name"] for file in shown["last_files"]]
    table = run(place, "sql", statement)
    assert table.returncode == 0 and b"(1 row)" in table.stdout
