"""The status command shows the backlog, the totals and the last files, for people and for scripts."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from commands import status
from db.connection import Database
from service.drop_folder import Backlog
from service.presence import Watched
from tests.db.test_queries import EMPTY
from tests.support import ROOT, Daemon, detections, event, report, statuses, until


def as_json(daemon: Daemon) -> Any:
    done = daemon.command("status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return msgspec.json.decode(done.stdout)


@pytest.fixture
def filled(daemon: Daemon) -> Daemon:
    """A stopped daemon with two loaded files (one of them in part), a failed one and two waiting ones."""
    daemon.drop("vehicles_status_1.json", statuses(report(), report(), {"vehicle_id": "x"}))
    daemon.drop("objects_detection_1.json", detections(event()))
    daemon.drop("vehicles_status_bad\n.json", b"[]")
    assert daemon.start("--once", wait=False).wait() == 1
    daemon.drop("vehicles_status_2.json", b"12345")
    daemon.drop("vehicles_status_3.json.gz", b"123")
    (daemon.incoming / ".hidden.json").write_bytes(b"1")
    return daemon


def test_a_new_database_has_only_zeros(daemon: Daemon) -> None:
    daemon.incoming.mkdir()
    shown = as_json(daemon)
    assert shown["backlog"] == {
        "folder": str(daemon.incoming),
        "error": "",
        "files": 0,
        "bytes": 0,
        "oldest_seconds": None,
        "oldest": [],
        "not_looked_at": [],
        "has_more": False,
    }
    assert set(shown["totals"].values()) == {0, None}
    assert (shown["last_files"], shown["last_failures"]) == ([], [])


def test_the_json_shows_everything(filled: Daemon) -> None:
    shown = as_json(filled)
    backlog, totals = shown["backlog"], shown["totals"]
    assert (backlog["files"], backlog["bytes"]) == (2, 8)
    assert [file["name"] for file in backlog["oldest"]] == [
        "vehicles_status_2.json",
        "vehicles_status_3.json.gz",
    ]
    assert totals.pop("last_finished_at").endswith("Z")
    assert totals == {
        "loaded_files": 2,
        "failed_files": 1,
        "recalled_files": 0,
        "open_failures": 1,
        "rows_read": 5,
        "rows_inserted": 3,
        "rows_duplicate": 1,
        "rows_rejected": 1,
        "open_rejects": 1,
    }
    assert {file["name"]: file["state"] for file in shown["last_files"]} == {
        "vehicles_status_1.json": "loaded",
        "objects_detection_1.json": "loaded",
        "vehicles_status_bad\\n.json": "failed",
    }
    assert [file["name"] for file in shown["last_failures"]] == ["vehicles_status_bad\\n.json"]


def test_the_text_shows_the_same(filled: Daemon) -> None:
    done = filled.command("status")
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    assert text.startswith("status     2 things to look at\ndaemon     not running\n")
    assert "waiting    2 files, 8 bytes, the oldest for " in text and f" s in {filled.incoming}\n" in text
    assert "\nloaded     2 files\nfailed     1 file, 1 of them to fix or to dismiss\n" in text
    assert "\nrecords    5 = 3 inserted + 1 duplicate + 1 rejected\n" in text
    assert (
        "loaded  vehicles_status_1.json  3 = 1 inserted + 1 duplicate + 1 rejected (vehicles_status)\n"
        in text
    )
    assert text.count("failed  vehicles_status_bad\\n.json  expected ") == 1
    assert text.replace("\n", "").isprintable()


def test_a_file_that_was_moved_here_is_as_old_as_the_move(daemon: Daemon) -> None:
    os.utime(daemon.drop("vehicles_status_2.json", b"12345"), (1, 1))
    assert as_json(daemon)["backlog"]["oldest_seconds"] < 1000


def test_what_is_not_looked_at_is_counted(filled: Daemon) -> None:
    (filled.incoming / "notes.txt").write_bytes(b"x")
    (filled.incoming / "car 7").mkdir()
    assert as_json(filled)["backlog"]["not_looked_at"] == ["car 7", "notes.txt"]
    assert "\nignored    2 other files and folders, such as car 7\n" in filled.command("status").stdout


def test_the_reason_for_which_a_file_waits_is_shown(daemon: Daemon) -> None:
    path = daemon.drop("vehicles_status_1.json", b"{")
    with open(path, "ab"):
        assert (
            f"s  {path.name}  1 byte: a program has it open for writing\n" in daemon.command("status").stdout
        )


def test_status_tells_since_when_the_daemon_runs(daemon: Daemon) -> None:
    assert daemon.command("status", "--check").returncode == 2  # no folder yet
    before = datetime.now(UTC)
    daemon.start()
    daemon.drop("vehicles_status_1.json", statuses(report()))
    daemon.until_empty()
    shown = as_json(daemon)
    assert shown["totals"]["loaded_files"] == 1 and shown["needs"] == []
    assert daemon.process is not None and shown["daemon"]["processes"] == [daemon.process.pid]
    since = datetime.fromisoformat(shown["daemon"]["since"])
    assert timedelta(seconds=-2) < since - before < timedelta(seconds=60)
    text = daemon.command("status", "--check")
    assert text.returncode == 0
    assert text.stdout.startswith("status     all is well\ndaemon     running since ")
    assert f"running since {since:%Y-%m-%d %H:%M}" in text.stdout
    assert "what to do next" not in text.stdout
    daemon.stop(signal.SIGKILL)
    assert as_json(daemon)["daemon"]["is_running"] is False


def test_the_daemon_is_seen_while_it_waits_for_the_database(daemon: Daemon) -> None:
    away = Daemon(daemon.folder, "postgresql://u@127.0.0.1:1/d")
    away.start(wait=False)
    until(lambda: " waiting for the database " in away.log())
    done = away.command("status")
    away.stop()
    assert done.returncode == 1 and "Connection refused" in done.stderr
    assert done.stdout.startswith("status     1 thing to look at\ndaemon     running since ")
    (shown,) = (line for line in done.stdout.splitlines() if line.startswith("database "))
    assert "Connection refused" in shown


def test_the_daemon_is_seen_in_a_folder_that_took_the_place_of_another(daemon: Daemon) -> None:
    daemon.start()
    daemon.incoming.rename(daemon.folder / "old")
    daemon.incoming.mkdir()
    until(lambda: as_json(daemon)["daemon"]["is_running"])


def check(daemon: Daemon) -> tuple[int, str]:
    """The exit code of --check, and what needs a person."""
    done = daemon.command("status", "--check")
    return done.returncode, done.stdout.partition("\nneeds a person\n")[2].partition("\n\n")[0]


def test_what_needs_a_person_is_an_exit_code(filled: Daemon) -> None:
    code, needs = check(filled)
    assert code == 1 and needs == "no daemon watches the folder\n1 file failed: fix and replay, or dismiss"
    for path in filled.incoming.glob("*.json*"):
        path.unlink()
    filled.start()
    code, needs = check(filled)
    assert code == 1 and needs == "1 file failed: fix and replay, or dismiss"
    assert filled.command("status").returncode == 0
    assert filled.command("replay", "failed", "--dismiss", "vehicles_status_bad\n.json").returncode == 0
    assert check(filled) == (0, "")
    assert "\nfailed     1 file, 0 of them to fix or to dismiss\n" in filled.command("status").stdout


def test_the_commands_to_type_next_do_what_they_say(daemon: Daemon) -> None:
    daemon.drop("vehicles_status_1.json", statuses(report(1), {"vehicle_id": "x"}))
    daemon.drop("vehicles_status_2.json", b"[]")
    daemon.drop("it's late.json", b"[]")
    assert daemon.start("--once", wait=False).wait() == 1
    steps = [step["command"] for step in as_json(daemon)["next_steps"]]
    assert [step.split()[2:4] for step in steps] == [
        [],
        ["check", *steps[1].split()[3:4]],
        ["replay", "failed"],
        ["replay", "failed"],
        ["sql", '"select'],
        ["sql", '"select'],
        ["replay", "rejected"],
    ]
    for path in daemon.failed.glob("*.json"):
        path.write_bytes(statuses(report(2, vehicle=path.name)))
    for step, code in ((steps[1], 0), (steps[2], 0), (steps[4], 0), (steps[5], 0), (steps[6], 1)):
        command = step.replace("python main.py", f"{sys.executable} {ROOT / 'main.py'}")
        done = subprocess.run(command, shell=True, cwd=daemon.folder, env=daemon.environment())
        assert done.returncode == code, command
    assert as_json(daemon)["totals"]["open_failures"] == 0


def test_a_file_that_waits_for_long_needs_a_person(daemon: Daemon) -> None:
    backlog = Backlog("x", files=1, oldest_seconds=3601.0)
    assert status._needs(Watched(True), backlog, EMPTY) == ["a file has waited for more than an hour"]


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["status", "--check"]])
def test_a_missing_folder_is_an_error(tmp_path: Path, database: Database, arguments: list[str]) -> None:
    daemon = Daemon(tmp_path, database.url, WATCH_FOLDER="nowhere")
    done = daemon.command(*arguments)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: can't list the watch folder {tmp_path}/nowhere: No such file or directory\n"
    )
    if "--json" not in arguments:
        assert (
            f"\nwaiting    not known: can't list {tmp_path}/nowhere: No such file or directory\n"
            in done.stdout
        )
        assert "\npython main.py  # starts the daemon\n" in done.stdout
    assert "loaded" in done.stdout
    assert not (tmp_path / "nowhere").exists()
    done = daemon.command("verify")
    assert done.returncode == 2 and "can't list the watch folder" in done.stderr
