"""status tells the backlog, the totals and the last files, for people and for scripts."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from db.connection import Database
from tests.support import Daemon, detections, event, report, statuses


def as_json(daemon: Daemon) -> Any:
    done = daemon.command("status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return msgspec.json.decode(done.stdout)


@pytest.fixture
def filled(daemon: Daemon) -> Daemon:
    """Two files loaded, one of them in part, one failed; two more wait, and the daemon is gone."""
    daemon.drop("vehicles_status_1.json", statuses(report(), report(), {"vehicle_id": "x"}))
    daemon.drop("objects_detection_1.json", detections(event()))
    daemon.drop("vehicles_status_bad\n.json", b"[]")
    assert daemon.start("--once", wait=False).wait() == 1
    os.utime(daemon.drop("vehicles_status_2.json", b"12345"), (1, 1))
    daemon.drop("vehicles_status_3.json.gz", b"123")
    (daemon.incoming / ".hidden.json").write_bytes(b"1")
    return daemon


def test_of_a_new_database(daemon: Daemon) -> None:
    told = as_json(daemon)
    assert told["backlog"] == {"folder": str(daemon.incoming), "files": 0, "bytes": 0, "oldest_seconds": None}
    assert set(told["totals"].values()) == {0, None}
    assert (told["last_files"], told["last_failures"]) == ([], [])


def test_the_json_tells_all(filled: Daemon) -> None:
    told = as_json(filled)
    backlog, totals = told["backlog"], told["totals"]
    assert (backlog["files"], backlog["bytes"]) == (2, 8) and backlog["oldest_seconds"] > 1e9
    assert totals.pop("last_finished_at").endswith("Z")
    assert totals == {
        "loaded_files": 2,
        "failed_files": 1,
        "rows_read": 5,
        "rows_inserted": 3,
        "rows_duplicate": 1,
        "rows_rejected": 1,
        "open_rejects": 1,
    }
    assert {file["name"]: file["state"] for file in told["last_files"]} == {
        "vehicles_status_1.json": "loaded",
        "objects_detection_1.json": "loaded",
        "vehicles_status_bad\\n.json": "failed",
    }
    assert [file["name"] for file in told["last_failures"]] == ["vehicles_status_bad\\n.json"]


def test_the_text_tells_the_same(filled: Daemon) -> None:
    done = filled.command("status")
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout
    assert "waiting    2 files, 8 bytes, the oldest for " in told and f" s in {filled.incoming}\n" in told
    assert "\nloaded     2 files\nfailed     1 files\n" in told
    assert "\nrecords    5 = 3 inserted + 1 duplicate + 1 rejected\n" in told
    assert (
        "loaded  vehicles_status_1.json  3 = 1 inserted + 1 duplicate + 1 rejected (vehicles_status)\n"
        in told
    )
    assert "failed  vehicles_status_bad\\n.json  expected " in told
    assert told.replace("\n", "").isprintable()


def test_while_the_daemon_runs(daemon: Daemon) -> None:
    daemon.start()
    daemon.drop("vehicles_status_1.json", statuses(report()))
    daemon.until_empty()
    assert as_json(daemon)["totals"]["loaded_files"] == 1


def test_of_a_folder_that_is_not_there(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url, WATCH_FOLDER="nowhere")
    assert as_json(daemon)["backlog"]["files"] == 0
    assert not (tmp_path / "nowhere").exists()
