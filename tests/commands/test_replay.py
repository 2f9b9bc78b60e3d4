"""What was fixed is loaded again, exactly once, and what was rejected is resolved with it."""

import json as stdlib_json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from msgspec import json

import db.session
from commands import replay
from config import load_settings
from db.connection import Database
from db.reject_pages import Reject
from db.rejects import Stored
from db.replay import ReplaySink
from processing.errors import DatabaseUnavailable, Misconfigured
from processing.sink import Delivery
from tests.db.loading import delivery, load, sink_to
from tests.support import ROOT, VEHICLE, Daemon, detections, event, query, report, statuses, until

NO_ZONE = {"vehicle_id": "v2", "report_time": "2022-05-05T22:00:02.546", "status": "driving"}
HISTORY = "SELECT vehicle_id, status FROM mobileye_data.vehicle_status_history ORDER BY 1, report_time"
OPEN = "SELECT position, reason FROM mobileye_data.open_rejects ORDER BY file_id, position"


def fail(daemon: Daemon, **files: bytes) -> None:
    """Files that have come to failed/ in the ordinary way."""
    for name, content in files.items():
        daemon.drop(f"{name}.json", content)
    assert daemon.start("--once", wait=False).wait() == 1
    assert {f"{name}.json" for name in files} <= set(os.listdir(daemon.failed))


def left(daemon: Daemon) -> list[str]:
    return sorted(name for name in os.listdir(daemon.failed) if name != ".claimed")


def claims(daemon: Daemon) -> list[str]:
    return os.listdir(daemon.failed / ".claimed")


def reject(database: Database, content: bytes) -> int:
    """A file loaded with its rejects; its id."""
    with sink_to(database) as sink:
        load(sink, content)
    with closing(psycopg2.connect(database.url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT max(file_id) FROM mobileye_data.ingested_files")
        return int(cursor.fetchall()[0][0])


def write(folder: Path, edits: Any) -> None:
    (folder / "edits.json").write_bytes(json.encode(edits))


def edit(file_id: int, position: int, original: Any) -> dict[str, Any]:
    return {"file_id": file_id, "position": position, "original": original}


def fixed(content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**content, **fields}


# Files ------------------------------------------------------------------------------------------------


def test_all_failed_files_are_loaded_from_where_they_are(daemon: Daemon) -> None:
    fail(daemon, vehicles_status_1=b"[]", vehicles_status_2=b"[")
    (daemon.failed / "vehicles_status_1.json").write_bytes(statuses(report(1)))
    (daemon.failed / "vehicles_status_2.json").write_bytes(statuses(report(2), {}))
    done = daemon.command("replay", "failed")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "vehicles_status_1.json: loaded, 1 = 1 inserted + 0 duplicate + 0 rejected (vehicles_status)",
        "vehicles_status_2.json: loaded, 2 = 1 inserted + 0 duplicate + 1 rejected (vehicles_status)",
        "2 files: 2 loaded, 0 not",
    ]
    assert left(daemon) == [] and claims(daemon) == []


def test_bytes_that_failed_are_loaded_under_a_name_that_suits_them(daemon: Daemon) -> None:
    fail(daemon, objects_detection_1=statuses(report(1)))
    (daemon.failed / "objects_detection_1.json").rename(daemon.failed / "vehicles_status_1.json")
    assert daemon.command("replay", "failed", "vehicles_status_1.json").returncode == 0
    assert daemon.rows("SELECT state, error, deliveries FROM mobileye_data.ingested_files") == [
        ("loaded", None, 2)
    ]


def test_files_are_chosen_by_name_or_by_path(daemon: Daemon) -> None:
    fail(daemon, **{f"vehicles_status_{i}": b"[]" for i in range(3)})
    for path in daemon.failed.glob("*.json"):
        path.write_bytes(statuses(report(1, vehicle=path.name)))
    chosen = "vehicles_status_0.json", "incoming/failed/vehicles_status_2.json"
    assert daemon.command("replay", "failed", *chosen).returncode == 0
    assert left(daemon) == ["vehicles_status_1.json", "vehicles_status_1.json.reason.txt"]


def test_a_file_that_is_still_bad_stays_with_its_new_reason(daemon: Daemon) -> None:
    fail(daemon, vehicles_status_1=b"[]", vehicles_status_2=b"[]")
    (daemon.failed / "vehicles_status_1.json").write_bytes(b"{}")
    (daemon.failed / "vehicles_status_2.json").write_bytes(statuses(report(1)))
    done = daemon.command("replay", "failed")
    assert done.returncode == 1
    assert "vehicles_status_1.json: failed again: expected one array" in done.stdout
    assert done.stdout.endswith("2 files: 1 loaded, 1 not\n")
    assert left(daemon) == ["vehicles_status_1.json", "vehicles_status_1.json.reason.txt"]
    assert "an empty object" in (daemon.failed / "vehicles_status_1.json.reason.txt").read_text()


def test_a_file_that_ends_in_the_middle_fails_again_at_once(daemon: Daemon) -> None:
    fail(daemon, vehicles_status_1=statuses(report(1))[:-1])
    done = daemon.command("replay", "failed")
    assert done.returncode == 1
    assert "vehicles_status_1.json: failed again: it ends in the middle" in done.stdout


def test_a_file_that_is_open_for_writing_is_left(daemon: Daemon) -> None:
    fail(daemon, vehicles_status_1=b"[]")
    with open(daemon.failed / "vehicles_status_1.json", "ab"):
        done = daemon.command("replay", "failed")
    assert done.returncode == 1
    assert "vehicles_status_1.json: not loaded now: a program has it open for writing\n" in done.stdout


def test_a_name_that_is_not_there_is_reported(daemon: Daemon) -> None:
    daemon.failed.mkdir(parents=True)
    done = daemon.command("replay", "failed", "x.json")
    assert (done.returncode, done.stdout) == (1, "x.json: no such file\n1 file: 0 loaded, 1 not\n")


def test_a_path_that_leads_elsewhere_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    done = daemon.command("replay", "failed", "../x.json")
    assert (done.returncode, done.stderr) == (2, f"error: ../x.json is not in {daemon.failed}\n")


def test_without_a_failed_folder_there_is_nothing_to_do(daemon: Daemon) -> None:
    done = daemon.command("replay", "failed")
    assert (done.returncode, done.stdout) == (0, "0 files: 0 loaded, 0 not\n")


def test_a_replay_that_was_killed_after_the_commit_is_ended_by_the_next(daemon: Daemon) -> None:
    """What such a kill leaves: rows and ledger entry, the file claimed, its note gone."""
    fail(daemon, vehicles_status_1=b"[]")
    (daemon.failed / "vehicles_status_1.json.reason.txt").unlink()
    killed = daemon.failed / ".claimed" / "0123"
    killed.mkdir(parents=True)
    (daemon.failed / "vehicles_status_1.json").unlink()
    (killed / "vehicles_status_1.json").write_bytes(statuses(report(1)))
    with sink_to(Database(str(daemon.url))) as sink:
        load(sink, statuses(report(1)))
    done = daemon.command("replay", "failed")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "vehicles_status_1.json: loaded already")
    assert left(daemon) == [] and claims(daemon) == []
    assert len(daemon.rows(HISTORY)) == 1


def test_a_running_daemon_and_a_replay_share_the_work(daemon: Daemon) -> None:
    fail(daemon, **{f"vehicles_status_{i}": b"[]" for i in range(20)})
    daemon.start()
    for i in range(20):
        content = statuses(report(i, vehicle=f"v{i}"))
        (daemon.failed / f"vehicles_status_{i}.json").write_bytes(content)
        daemon.drop(f"vehicles_status_again_{i}.json", content)
    assert daemon.command("replay", "failed").returncode == 0
    daemon.until_empty()
    assert left(daemon) == []
    assert len(daemon.rows(HISTORY)) == 20
    deliveries = "SELECT sum(deliveries), sum(rows_inserted) FROM mobileye_data.ingested_files"
    assert daemon.rows(f"{deliveries} WHERE state = 'loaded'") == [(40, 20)]


# Records ----------------------------------------------------------------------------------------------


def test_a_conflict_that_is_none_any_more_is_loaded(daemon: Daemon, database: Database) -> None:
    reject(database, statuses(report(1), report(1, "parking")))
    daemon.rows("DELETE FROM mobileye_data.vehicle_status_history")
    done = daemon.command("replay", "rejected")
    assert (done.returncode, done.stdout) == (0, "1 record: 1 loaded, 0 still rejected\n")
    assert daemon.rows(HISTORY) == [("ebab5f787798416fb2b8afc1340d7a4e", "parking")]
    assert daemon.rows(OPEN) == []
    assert daemon.rows("SELECT resolved_at IS NOT NULL FROM mobileye_data.rejected_records") == [(True,)]


def test_each_is_entered_in_the_ledger_like_a_file(daemon: Daemon, database: Database) -> None:
    file_id = reject(database, statuses(report(1), report(1, "parking")))
    daemon.rows("DELETE FROM mobileye_data.vehicle_status_history")
    daemon.command("replay", "rejected")
    ledger = "SELECT name, kind, rows_read, rows_inserted, rows_rejected FROM mobileye_data.ingested_files"
    assert daemon.rows(f"{ledger} ORDER BY file_id") == [
        ("x.json", "vehicles_status", 2, 1, 1),
        (f"x.json, record 1 of file {file_id}", "vehicles_status", 1, 1, 0),
    ]


def test_what_is_loaded_is_not_loaded_again(daemon: Daemon, database: Database) -> None:
    reject(database, statuses(report(1), report(1, "parking")))
    daemon.rows("DELETE FROM mobileye_data.vehicle_status_history")
    assert daemon.command("replay", "rejected").returncode == 0
    done = daemon.command("replay", "rejected")
    assert (done.returncode, done.stdout) == (0, "0 records: 0 loaded, 0 still rejected\n")
    assert len(daemon.rows(HISTORY)) == 1


def test_what_is_still_wrong_stays_open_with_the_new_reason(daemon: Daemon, database: Database) -> None:
    file_id = reject(database, statuses(report(1), {}, report(1, "parking")))
    daemon.rows("UPDATE mobileye_data.rejected_records SET reason = 'refused', detail = 'old', path = 'old'")
    done = daemon.command("replay", "rejected")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"x.json, record 1 of file {file_id}: $.vehicle_status[0]  invalid: "
        "Object missing required field `vehicle_id`",
        f"x.json, record 2 of file {file_id}: $.vehicle_status[0]  conflict: "
        "Expected the value stored under this key (status=driving extra=null), got another",
        "2 records: 0 loaded, 2 still rejected",
    ]
    assert daemon.rows(OPEN) == [(1, "invalid"), (2, "conflict")]
    assert daemon.rows("SELECT count(*), sum(rows_rejected) FROM mobileye_data.ingested_files") == [(1, 2)]


def test_good_and_bad_ones_do_not_touch_each_other(daemon: Daemon, database: Database) -> None:
    wrong = [{"vehicle_id": f"w{i}"} for i in range(5)]
    file_id = reject(database, statuses(*[report(1, vehicle=f"v{i}") for i in range(5)], *wrong))
    reject(database, statuses(*[report(1, "parking", vehicle=f"v{i}") for i in range(5)]))
    daemon.rows("DELETE FROM mobileye_data.vehicle_status_history WHERE vehicle_id <> 'v3'")
    done = daemon.command("replay", "rejected")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "10 records: 4 loaded, 6 still rejected")
    assert daemon.rows(HISTORY) == [
        ("v0", "parking"),
        ("v1", "parking"),
        ("v2", "parking"),
        ("v3", "driving"),
        ("v4", "parking"),
    ]
    rows = "SELECT count(*) FROM mobileye_data.rejected_records"
    assert daemon.rows(f"{rows} WHERE file_id <> {file_id} AND resolved_at IS NULL") == [(1,)]
    assert daemon.rows(rows) == [(10,)]


def test_more_than_a_page_is_loaded(daemon: Daemon, database: Database) -> None:
    reports = [report(i % 3600, "parking", vehicle=f"v{i // 3600}") for i in range(450)]
    reject(database, statuses(*[fixed(one, status="x") for one in reports]))
    reject(database, statuses(*reports))
    daemon.rows("DELETE FROM mobileye_data.vehicle_status_history")
    done = daemon.command("replay", "rejected")
    assert (done.returncode, done.stdout) == (0, "450 records: 450 loaded, 0 still rejected\n")
    assert daemon.rows("SELECT count(*) FROM mobileye_data.vehicle_status_history") == [(450,)]


def test_records_are_chosen_by_file_and_by_reason(daemon: Daemon, database: Database) -> None:
    reject(database, statuses(report(1), report(1, "parking"), {}))
    daemon.rows("DELETE FROM mobileye_data.vehicle_status_history")
    assert daemon.command("replay", "rejected", "--file", "y.json").stdout.startswith("0 records")
    assert daemon.command("replay", "rejected", "--reason", "refused").stdout.startswith("0 records")
    chosen = daemon.command("replay", "rejected", "--file", "x.json", "--reason", "conflict")
    assert (chosen.returncode, chosen.stdout) == (0, "1 record: 1 loaded, 0 still rejected\n")
    assert daemon.rows(OPEN) == [(2, "invalid")]


def test_a_key_that_came_twice_is_not_guessed_at(daemon: Daemon, database: Database) -> None:
    daemon.drop(
        "vehicles_status_1.json",
        b'{"vehicle_status":[{"vehicle_id":"a","status":"x","status":"y",'
        b'"report_time":"2022-05-05T22:02:34.546Z"}]}',
    )
    assert daemon.start("--once", wait=False).wait() == 0
    done = daemon.command("replay", "rejected")
    assert done.returncode == 1
    assert "invalid: Expected each key once, got it twice" in done.stdout


def test_a_file_of_one_record_is_resolved_with_its_row(daemon: Daemon) -> None:
    """The replay's document has the very bytes of the dropped file, which the ledger has as loaded."""
    daemon.drop("vehicles_status_1.json", statuses(report(1)))
    assert daemon.start("--once", wait=False).wait() == 0
    daemon.drop("vehicles_status_2.json", statuses(report(1, "parking")))
    assert daemon.start("--once", wait=False).wait() == 0
    still = daemon.command("replay", "rejected")
    assert (still.returncode, still.stdout.splitlines()[-1]) == (1, "1 record: 0 loaded, 1 still rejected")
    daemon.rows("DELETE FROM mobileye_data.vehicle_status_history")
    done = daemon.command("replay", "rejected")
    assert (done.returncode, done.stdout) == (0, "1 record: 1 loaded, 0 still rejected\n")
    assert daemon.rows(HISTORY) == [(VEHICLE, "parking")]
    resolved = (
        "SELECT h.file_id FROM mobileye_data.rejected_records r JOIN mobileye_data.vehicle_status_history h"
    )
    assert len(daemon.rows(f"{resolved} ON h.file_id = r.resolved_by")) == 1
    deliveries = "SELECT deliveries, last_name FROM mobileye_data.ingested_files ORDER BY file_id"
    assert daemon.rows(deliveries)[:2] == [(1, "vehicles_status_1.json"), (1, "vehicles_status_2.json")]


def test_of_two_equal_records_one_is_loaded_and_one_is_a_duplicate_that_is_named(
    daemon: Daemon, database: Database
) -> None:
    file_id = reject(database, statuses(report(1), report(1, "parking"), report(1, "parking")))
    daemon.rows("DELETE FROM mobileye_data.vehicle_status_history")
    done = daemon.command("replay", "rejected")
    (entry,) = daemon.rows("SELECT file_id FROM mobileye_data.vehicle_status_history")[0]
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            f"x.json, record 2 of file {file_id}: a duplicate of a row of file {entry} "
            f"(x.json, record 1 of file {file_id})",
            "2 records: 2 loaded, 0 still rejected",
        ],
    )
    counted = (
        "SELECT sum(rows_inserted), sum(rows_duplicate), count(sha256) FROM mobileye_data.ingested_files"
    )
    assert daemon.rows(f"{counted} WHERE name <> 'x.json'") == [(1, 1, 0)]
    assert daemon.rows(HISTORY) == [(VEHICLE, "parking")]


def test_a_file_of_the_bytes_of_a_replay_is_a_delivery_of_its_own(daemon: Daemon, database: Database) -> None:
    """Even if the rows of the replay are there no more."""
    reject(database, statuses(report(1), report(1, "parking")))
    daemon.rows("DELETE FROM mobileye_data.vehicle_status_history")
    assert daemon.command("replay", "rejected").returncode == 0
    daemon.rows("DELETE FROM mobileye_data.vehicle_status_history")
    daemon.drop("vehicles_status_1.json", statuses(report(1, "parking")))
    assert daemon.start("--once", wait=False).wait() == 0
    assert daemon.rows(HISTORY) == [(VEHICLE, "parking")]


def test_a_record_that_is_opened_again_is_loaded_again(daemon: Daemon, database: Database) -> None:
    reject(database, statuses(report(1), report(1, "parking")))
    for _ in range(2):
        daemon.rows("DELETE FROM mobileye_data.vehicle_status_history")
        daemon.rows("UPDATE mobileye_data.rejected_records SET resolved_at = NULL")
        assert daemon.command("replay", "rejected").returncode == 0
        assert daemon.rows(HISTORY) == [(VEHICLE, "parking")]


# Edited records ---------------------------------------------------------------------------------------


def test_edited_records_are_loaded_in_place_of_their_originals(
    daemon: Daemon, database: Database, tmp_path: Path
) -> None:
    reject(database, statuses(NO_ZONE, {}))
    rows = json.decode(daemon.command("sql", "select * from open_rejects order by position", "--json").stdout)
    rows[0]["original"]["report_time"] += "Z"
    write(tmp_path, rows[:1])
    done = daemon.command("replay", "rejected", "--edited", "edits.json")
    assert (done.returncode, done.stdout) == (0, "1 record: 1 loaded, 0 still rejected\n")
    assert daemon.rows(HISTORY) == [("v2", "driving")]
    assert daemon.rows(OPEN) == [(1, "invalid")]
    stored = "SELECT original->>'report_time', edited->>'report_time' FROM mobileye_data.rejected_records"
    assert daemon.rows(f"{stored} WHERE position = 0") == [
        ("2022-05-05T22:00:02.546", "2022-05-05T22:00:02.546Z")
    ]


def test_originals_survive_the_way_through_a_file(daemon: Daemon, tmp_path: Path) -> None:
    """To the letter: repeated keys, numbers of any size, as they were dropped."""
    time = '"report_time":"2022-05-05T22:02:34.546Z"'
    twice = f'{{"vehicle_id":"a","status":"x","status":"y",{time}}}'
    numbers = f'"n":[1e309,12345678901234567890123,0.12345678901234567890123,1.50],{time}'
    wrong = f'{{"vehicle_id":"b","status":5,{numbers}}}'
    daemon.drop("vehicles_status_1.json", f'{{"vehicle_status":[{twice},{wrong}]}}'.encode())
    assert daemon.start("--once", wait=False).wait() == 0
    originals = daemon.rows("SELECT original::text FROM mobileye_data.rejected_records ORDER BY position")
    exported = daemon.command("sql", "select * from open_rejects order by position", "--json").stdout
    for (original,) in originals:
        assert re.sub(r"\s", "", original) in re.sub(r"\s", "", exported)
    (tmp_path / "rejects.json").write_text(exported.replace('"status": 5', '"status": "driving"'))
    done = daemon.command("replay", "rejected", "--edited", "rejects.json")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].endswith("invalid: Expected each key once, got it twice")
    assert done.stdout.splitlines()[1:] == ["2 records: 1 loaded, 1 still rejected"]
    assert daemon.rows(
        "SELECT vehicle_id, (extra->'n'->>0)::numeric FROM mobileye_data.vehicle_status_history"
    ) == [("b", Decimal("1e309"))]
    edited = daemon.rows("SELECT edited::text FROM mobileye_data.rejected_records ORDER BY position")
    expected = [original.replace('"status":5', '"status":"driving"') for (original,) in originals]
    assert [re.sub(r"\s", "", text) for (text,) in edited] == expected


def test_an_event_may_become_several_rows(daemon: Daemon, database: Database, tmp_path: Path) -> None:
    bad = fixed(event(1), detection_time="noon")
    file_id = reject(database, detections(bad, bad))
    write(
        tmp_path,
        [
            edit(file_id, 0, event(1)),
            edit(file_id, 1, fixed(event(2), detections=[{"object_type": "cars", "object_value": "many"}])),
        ],
    )
    done = daemon.command("replay", "rejected", "--edited", "edits.json")
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        [
            f"x.json, record 1 of file {file_id}: $.objects_detection_events[0].detections[0].object_value  "
            "invalid: Expected `int`, got `str`",
            "2 records: 1 loaded, 1 still rejected",
        ],
    )
    assert daemon.rows("SELECT count(*) FROM mobileye_data.objects_detection_events") == [(2,)]
    assert daemon.rows(OPEN) == [(1, "invalid")]


def test_an_edit_without_rows_stays_open(daemon: Daemon, database: Database, tmp_path: Path) -> None:
    file_id = reject(database, detections(fixed(event(1), detection_time="noon")))
    write(tmp_path, [edit(file_id, 0, fixed(event(1), detections=[]))])
    done = daemon.command("replay", "rejected", "--edited", "edits.json")
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        [
            f"x.json, record 0 of file {file_id}: $  invalid: Expected at least one detection, got none",
            "1 record: 0 loaded, 1 still rejected",
        ],
    )
    assert daemon.rows(OPEN) == [(0, "invalid")]


def test_what_an_event_brings_beside_rows_that_are_there_is_loaded(
    daemon: Daemon, database: Database, tmp_path: Path
) -> None:
    file_id = reject(database, detections(fixed(event(1), detection_time="noon")))
    other = reject(database, detections(event(1, ("cars", 2), ("signs", 1))))
    write(tmp_path, [edit(file_id, 0, event(1))])
    done = daemon.command("replay", "rejected", "--edited", "edits.json")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            f"x.json, record 0 of file {file_id}: a duplicate of a row of file {other} (x.json)",
            "1 record: 1 loaded, 0 still rejected",
        ],
    )
    values = "SELECT object_type, object_value FROM mobileye_data.objects_detection_events ORDER BY 1"
    assert daemon.rows(values) == [("cars", 2), ("pedestrians", 3), ("signs", 1)]


@pytest.mark.parametrize("wrong", [{"deep": [[[[{}]]]] * 20}, 10**1001, "x" * 5_000_000])
def test_an_edit_that_is_no_record_stays_open(
    daemon: Daemon, database: Database, tmp_path: Path, wrong: Any
) -> None:
    file_id = reject(database, statuses(NO_ZONE))
    (tmp_path / "edits.json").write_text(stdlib_json.dumps([edit(file_id, 0, wrong)]))
    done = daemon.command("replay", "rejected", "--edited", "edits.json")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("1 record: 0 loaded, 1 still rejected\n")
    assert daemon.rows(OPEN) == [(0, "invalid")]


def test_an_edit_of_what_is_not_open_is_reported(daemon: Daemon, database: Database, tmp_path: Path) -> None:
    file_id = reject(database, statuses(NO_ZONE))
    good = fixed(NO_ZONE, report_time="2022-05-05T22:00:02.546Z")
    write(tmp_path, [edit(file_id, 0, good), edit(file_id, 7, good)])
    first = daemon.command("replay", "rejected", "--edited", "edits.json")
    assert (first.returncode, first.stdout.splitlines()) == (
        1,
        [
            f"record 7 of file {file_id}: not open: it is loaded already or was never rejected",
            "1 record: 1 loaded, 0 still rejected",
        ],
    )
    second = daemon.command("replay", "rejected", "--edited", "edits.json")
    assert second.returncode == 1
    assert f"record 0 of file {file_id}: not open" in second.stdout
    assert len(daemon.rows(HISTORY)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"{}",
            "array of objects with file_id, position and original: Expected `array`, got `object`",
        ),
        (
            b'[{"file_id":1,"position":0,"original":"\\ud83d"}]',
            "should be an array of objects with file_id, position and original",
        ),
        (b"[", "should be an array of objects with file_id, position and original: Input data was truncated"),
        (
            b"\xff",
            "should be an array of objects with file_id, position and original: 'utf-8' codec can't decode",
        ),
        (b'[{"file_id":-1,"position":0,"original":{}}]', "Expected `int` >= 0 - at `$[0].file_id`"),
        (
            b'[{"file_id":1,"position":0,"original":1},{"file_id":1,"position":0,"original":2}]',
            "names a record twice",
        ),
    ],
)
def test_an_edited_file_of_another_form_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "edits.json").write_bytes(content)
    with pytest.raises(Misconfigured) as caught:
        replay.read_edits(tmp_path / "edits.json")
    assert message in str(caught.value)


def test_an_edited_file_that_is_not_there_is_reported(daemon: Daemon) -> None:
    done = daemon.command("replay", "rejected", "--edited", "none.json")
    assert (done.returncode, done.stderr) == (2, "error: can't read none.json: No such file or directory\n")


def test_an_edited_file_names_its_records_itself(daemon: Daemon) -> None:
    done = daemon.command("replay", "rejected", "--edited", "x.json", "--file", "y.json")
    assert done.returncode == 2
    assert done.stderr == "error: --edited lists its records itself: leave out --file and --reason\n"


# Exactly once -----------------------------------------------------------------------------------------


@contextmanager
def replaying(daemon: Daemon) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), "replay", "rejected"],
        cwd=daemon.folder,
        env=daemon.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_lock(daemon: Daemon) -> None:
    until(lambda: daemon.rows("SELECT 1 FROM pg_locks WHERE NOT granted"))


HELD = [
    "LOCK TABLE mobileye_data.vehicle_status_history IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE mobileye_data.vehicle_status IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE mobileye_data.ingested_files IN SHARE MODE",
    "SELECT FROM mobileye_data.rejected_records FOR UPDATE",
]


@pytest.mark.parametrize("held", HELD, ids=["rows", "latest", "ledger", "resolving"])
def test_a_kill_before_the_commit_leaves_all_as_it_was(daemon: Daemon, database: Database, held: str) -> None:
    reject(database, statuses(report(1), report(1, "parking")))
    daemon.rows("DELETE FROM mobileye_data.vehicle_status_history")
    with closing(psycopg2.connect(database.url)) as holder, replaying(daemon) as process:
        holder.cursor().execute(held)
        wait_for_lock(daemon)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        holder.rollback()
    until(lambda: not daemon.rows("SELECT 1 FROM pg_stat_activity WHERE application_name = 'mobileye-data'"))
    assert (daemon.rows(HISTORY), daemon.rows(OPEN)) == ([], [(1, "conflict")])
    assert daemon.command("replay", "rejected").stdout == "1 record: 1 loaded, 0 still rejected\n"
    assert (len(daemon.rows(HISTORY)), daemon.rows(OPEN)) == (1, [])


def test_of_two_replays_at_once_one_loads_it(daemon: Daemon, database: Database) -> None:
    reject(database, statuses(report(1), report(1, "parking")))
    daemon.rows("DELETE FROM mobileye_data.vehicle_status_history")
    with closing(psycopg2.connect(database.url)) as holder:
        holder.cursor().execute(HELD[0])
        with replaying(daemon) as one, replaying(daemon) as two:
            until(lambda: len(daemon.rows("SELECT 1 FROM pg_locks WHERE NOT granted")) == 2)
            holder.rollback()
            codes = sorted((one.wait(20), two.wait(20)))
    assert codes == [0, 1]
    assert (len(daemon.rows(HISTORY)), daemon.rows(OPEN)) == (1, [])
    assert daemon.rows(
        "SELECT sum(rows_inserted) FROM mobileye_data.ingested_files WHERE name <> 'x.json'"
    ) == [(1,)]


def test_a_record_that_is_resolved_meanwhile_is_not_loaded(database: Database) -> None:
    file_id = reject(database, statuses(NO_ZONE))
    record = Reject(file_id, 0, "x.json", "vehicles_status", json.encode(report(1)).decode())
    settings = load_settings()
    with closing(psycopg2.connect(database.url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("UPDATE mobileye_data.rejected_records SET resolved_at = now()")
    with pytest.raises(DatabaseUnavailable, match="one of these records was loaded or edited meanwhile"):
        replay.load_records(settings, database, {record.name: record})
    with closing(psycopg2.connect(database.url)) as connection, connection.cursor() as cursor:
        cursor.execute(HISTORY)
        assert cursor.fetchall() == []


def test_a_record_that_is_edited_meanwhile_is_not_loaded(database: Database) -> None:
    """What is stored as edited is then not what was loaded."""
    file_id = reject(database, statuses(NO_ZONE))
    record = Reject(file_id, 0, "x.json", "vehicles_status", json.encode(report(1)).decode())
    with pytest.raises(DatabaseUnavailable, match="one of these records was loaded or edited meanwhile"):
        replay.load_records(load_settings(), database, {record.name: record})
    assert query(database.url, OPEN) == [(0, "invalid")]
    assert query(database.url, HISTORY) == []


def test_a_record_that_meets_a_lock_is_not_taken_for_loaded(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(db.session._SETTINGS, "lock_timeout", "'200ms'")
    file_id = reject(database, statuses(NO_ZONE))
    record = Reject(file_id, 0, "x.json", "vehicles_status", json.encode(report(1)).decode())
    with closing(psycopg2.connect(database.url)) as holder:
        holder.cursor().execute(HELD[0])
        with pytest.raises(DatabaseUnavailable, match="another transaction holds a lock"):
            replay.load_records(load_settings(), database, {record.name: record})


def test_a_record_that_fails_before_it_is_written_stays_open(database: Database) -> None:
    file_id = reject(database, statuses(NO_ZONE))
    record = Reject(file_id, 0, "x.json", "vehicles_status", "{}")
    with closing(ReplaySink(database, {record.name: record})) as sink:
        failed: Delivery = delivery(b"x", record.name)
        sink.record_failure(failed, None, "too large")
        assert sink.found == {record.name: Stored(0, "$", "invalid", "too large")}
