"""The status command shows the backlog, the totals and the last files, for people and for scripts."""

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
    """A stopped daemon with two loaded files (one of them in part), a failed one and two waiting ones."""
    daemon.drop("vehicles_status_1.json", statuses(report(), report(), {"vehicle_id": "x"}))
    daemon.drop("objects_detection_1.json", detections(event()))
    daemon.drop("vehicles_status_bad\n.json", b"[]")
    assert daemon.start("--once", wait=False).wait() == 1
    os.utime(daemon.drop("vehicles_status_2.json", b"12345"), (1, 1))
    daemon.drop("vehicles_status_3.json.gz", b"123")
    (daemon.incoming / ".hidden.json").write_bytes(b"1")
    return daemon


def test_a_new_database_has_only_zeros(daemon: Daemon) -> None:
    shown = as_json(daemon)
    assert shown["backlog"] == {
        "folder": str(daemon.incoming),
        "files": 0,
        "bytes": 0,
        "oldest_seconds": None,
    }
    assert set(shown["totals"].values()) == {0, None}
    assert (shown["last_files"], shown["last_failures"]) == ([], [])


def test_the_json_shows_everything(filled: Daemon) -> None:
    shown = as_json(filled)
    backlog, totals = shown["backlog"], shown["totals"]
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
    assert "waiting    2 files, 8 bytes, the oldest for " in text and f" s in {filled.incoming}\n" in text
    assert "\nloaded     2 files\nfailed     1 files\n" in text
    assert "\nrecords    5 = 3 inserted + 1 duplicate + 1 rejected\n" in text
    assert (
        "loaded  vehicles_status_1.json  3 = 1 inserted + 1 duplicate + 1 rejected (vehicles_status)\n"
        in text
    )
    assert "failed  vehicles_status_bad\\n.json  expected " in text
    assert text.replace("\n", "").isprintable()


def test_status_works_while_the_daemon_runs(daemon: Daemon) -> None:
    daemon.start()
    daemon.drop("vehicles_status_1.json", statuses(report()))
    daemon.until_empty()
    assert as_json(daemon)["totals"]["loaded_files"] == 1


def test_a_missing_folder_is_shown_as_empty(tmp_path: Path, database: Database) -> None:
    daemon = Daemon(tmp_path, database.url, WATCH_FOLDER="nowhere")
    assert as_json(daemon)["backlog"]["files"] == 0
    assert not (tmp_path / "nowhere").exists()
