"""A dry run: what it prints is what a load then does, and it leaves nothing behind."""

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from db.connection import Database
from sources.peek import PeekSource
from tests.db.loading import counts, load, sink_to
from tests.processing.support import WRITER, beside
from tests.support import ROOT, Daemon, detections, event, query, report, statuses, until

MIXED = statuses(report(1), report(1), report(1, "parking"), {"vehicle_id": "x"})


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_what_would_be_loaded_is_counted(daemon: Daemon, tmp_path: Path) -> None:
    put(tmp_path, "a.json", detections(event()))
    put(tmp_path, "vehicles_status_b.json", statuses(report(1), report(1)))
    done = daemon.command("check", "a.json", "vehicles_status_b.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "a.json: would load, 2 = 2 inserted + 0 duplicate + 0 rejected (objects_detection)",
        "vehicles_status_b.json: would load, 2 = 1 inserted + 1 duplicate + 0 rejected (vehicles_status)",
    ]


def test_rejects_are_reported_with_path_and_reason(daemon: Daemon, tmp_path: Path) -> None:
    put(tmp_path, "a.json", MIXED)
    done = daemon.command("check", "a.json")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "a.json: would load, 4 = 1 inserted + 1 duplicate + 2 rejected (vehicles_status)",
        "  $.vehicle_status[2]  conflict: Expected the value stored under this key "
        "(status=driving extra=null), got another",
        "  $.vehicle_status[3]  invalid: Object missing required field `report_time`",
    ]


@pytest.mark.parametrize("table", ["vehicle_status_history", "vehicle_status"])
def test_what_the_tables_refuse_is_reported(
    daemon: Daemon, database: Database, tmp_path: Path, table: str
) -> None:
    check = "CHECK (status <> 'parking')"
    query(database.url, f"ALTER TABLE mobileye_data.{table} ADD CONSTRAINT moving {check}")
    put(tmp_path, "a.json", statuses(report(1), report(2, "parking")))
    done = daemon.command("check", "a.json")
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert first == "a.json: would load, 2 = 1 inserted + 0 duplicate + 1 rejected (vehicles_status)"
    assert second.startswith("  $.vehicle_status[1]  refused: new row for relation ")
    assert set(counts(database).values()) == {0}


@pytest.mark.parametrize("table", ["rejected_records", "ingested_files"])
def test_a_file_that_would_fail_for_a_table_beside_its_rows_is_reported(
    daemon: Daemon, database: Database, tmp_path: Path, table: str
) -> None:
    query(database.url, f"ALTER TABLE mobileye_data.{table} ADD CONSTRAINT never CHECK (file_id < 0)")
    put(tmp_path, "a.json", statuses(report(1), {}))
    done = daemon.command("check", "a.json")
    assert done.returncode == 1
    assert done.stdout.startswith("a.json: would fail: the ")
    assert 'violates check constraint "never"' in done.stdout
    assert set(counts(database).values()) == {0}


def test_conflicts_with_what_is_stored_are_reported(
    daemon: Daemon, database: Database, tmp_path: Path
) -> None:
    with sink_to(database) as sink:
        load(sink, statuses(report(1)))
    put(tmp_path, "a.json", statuses(report(1, "parking")))
    done = daemon.command("check", "a.json")
    assert done.returncode == 1
    assert "  $.vehicle_status[0]  conflict: " in done.stdout


def test_of_many_rejects_the_first_are_reported(daemon: Daemon, tmp_path: Path) -> None:
    put(tmp_path, "a.json", statuses(*[{}] * 103))
    lines = daemon.command("check", "a.json").stdout.splitlines()
    assert len(lines) == 102
    assert lines[-1] == "  … and 3 more"


def test_files_that_would_not_load_are_reported(daemon: Daemon, tmp_path: Path) -> None:
    put(tmp_path, "mixed.json", MIXED)
    (tmp_path / "link.json").symlink_to("mixed.json")
    put(tmp_path, "half.json", MIXED[:-2])
    put(tmp_path, "bad.json", b"[]")
    done = daemon.command(
        "check", "mixed.json", "link.json", "half.json", "bad.json", "none.json", "bad.json/x"
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[3:] == [
        "link.json: would fail: expected a regular file, got a symbolic link",
        "half.json: would fail: it ends in the middle, after 4 whole elements",
        "bad.json: would fail: expected one array under one of the keys "
        "objects_detection_events, vehicle_status, got an array",
        "none.json: no such file",
        "bad.json/x: would wait: it can't be opened: Not a directory",
    ]


def test_the_limits_of_the_settings_hold(tmp_path: Path, database: Database) -> None:
    put(tmp_path, "a.json", MIXED)
    strict = Daemon(tmp_path, database.url, MAX_REJECT_RATIO=0.2).command("check", "a.json")
    small = Daemon(tmp_path, database.url, MAX_FILE_BYTES=10).command("check", "a.json")
    assert (strict.returncode, small.returncode) == (1, 1)
    assert strict.stdout.startswith(
        "a.json: would fail: expected a share of at most 0.2 of rejected records "
        "(MAX_REJECT_RATIO), got 2 of 4\n"
        "  $.vehicle_status[2]  conflict: "
    )
    assert small.stdout.startswith("a.json: would fail: expected at most 10 bytes (MAX_FILE_BYTES), got")


def test_bytes_that_are_loaded_already_are_reported(
    daemon: Daemon, database: Database, tmp_path: Path
) -> None:
    with sink_to(database) as sink:
        load(sink, MIXED)
    put(tmp_path, "a.json", MIXED)
    done = daemon.command("check", "a.json")
    assert (done.returncode, done.stdout) == (
        0,
        "a.json: would load nothing: these bytes are loaded already\n",
    )
    assert daemon.rows("SELECT deliveries FROM mobileye_data.ingested_files") == [(1,)]


def test_a_file_that_is_being_written_would_wait(daemon: Daemon, tmp_path: Path) -> None:
    with beside(WRITER, put(tmp_path, "a.json", MIXED)):
        done = daemon.command("check", "a.json")
    assert (done.returncode, done.stdout) == (1, "a.json: would wait: a program has it open for writing\n")


@pytest.mark.parametrize("rows", [3, 25_000], ids=["small", "large"])
def test_nothing_is_left_behind(daemon: Daemon, database: Database, tmp_path: Path, rows: int) -> None:
    good = statuses(*[report(i % 3600, vehicle=f"v{i // 3600}") for i in range(rows)], {})
    paths = [put(tmp_path, "a.json", good), put(tmp_path, "b.json", b"[]")]
    before = [os.stat(path) for path in paths]
    assert f"{rows:,} inserted" in daemon.command("check", *map(str, paths)).stdout
    assert set(counts(database).values()) == {0}
    after = [os.stat(path) for path in paths]
    assert [(s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for s in after] == [
        (s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for s in before
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", "a.json", "b.json"]


def test_what_was_checked_loads(daemon: Daemon) -> None:
    path = daemon.drop("vehicles_status_1.json", MIXED)
    assert daemon.command("check", str(path)).returncode == 1
    daemon.start("--once", wait=False)
    assert daemon.wait() == 0
    assert " rows=4 inserted=1 duplicate=1 rejected=2 " in daemon.log()


def test_a_file_that_is_looked_at_is_not_locked(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", MIXED)
    with PeekSource(str(tmp_path)).open("a.json"), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_where_files_can_not_be_locked_they_can_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError("no locks available")

    put(tmp_path, "a.json", MIXED)
    monkeypatch.setattr(fcntl, "flock", flock)
    with PeekSource(str(tmp_path)).open("a.json") as source:
        source.digest()
    assert source.content == MIXED


def test_ctrl_c_ends_it_without_a_traceback(daemon: Daemon, database: Database, tmp_path: Path) -> None:
    put(tmp_path, "a.json", statuses(report(1)))
    with closing(psycopg2.connect(database.url)) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE mobileye_data.vehicle_status IN ACCESS EXCLUSIVE MODE")
        checking = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), "check", "a.json"],
            cwd=tmp_path,
            env=daemon.environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: daemon.rows("SELECT 1 FROM pg_locks WHERE NOT granted"))
        checking.send_signal(signal.SIGINT)
        until(lambda: checking.poll() is not None or daemon.rows("SELECT 1 FROM pg_locks WHERE NOT granted"))
        holder.rollback()
        _, output = checking.communicate(timeout=20)
    assert (checking.returncode, output) == (130, "")
