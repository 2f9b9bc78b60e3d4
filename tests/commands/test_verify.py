"""Each thing that does not add up is reported by itself; if everything adds up, one line says so."""

import socket
from collections.abc import Callable

import pytest
from msgspec import json

from tests.support import VEHICLE, Daemon, detections, event, report, statuses

GOOD = "ledger, tables and folders add up\n"
EDITED = json.encode(report(5)).decode()
SCHEMA = "SET search_path = mobileye_data"


@pytest.fixture
def used(daemon: Daemon) -> Daemon:
    """One with files of each fate: loaded with rejects, loaded twice, failed, failed without being read."""
    daemon.drop("vehicles_status_1.json", statuses(report(1), report(2), report(2), {}))
    daemon.drop("vehicles_status_2.json", statuses(report(3), {}))
    daemon.drop("objects_detection_1.json", detections(event(1)))
    daemon.drop("objects_detection_2.json", detections(event(1)))
    daemon.drop("bad.json", b"[]")
    (daemon.incoming / "link.json").symlink_to("nowhere")
    assert daemon.start("--once", wait=False).wait() == 1
    return daemon


def verify(daemon: Daemon) -> tuple[int, list[str]]:
    done = daemon.command("verify")
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def file_id(daemon: Daemon, name: str) -> int:
    ledger = "SELECT file_id FROM mobileye_data.ingested_files WHERE name = %s"
    return int(daemon.rows(ledger, [name])[0][0])


def test_an_empty_database_adds_up(daemon: Daemon) -> None:
    daemon.incoming.mkdir()
    assert (daemon.command("verify").returncode, daemon.command("verify").stdout) == (0, GOOD)


def test_what_was_loaded_failed_and_replayed_adds_up(used: Daemon) -> None:
    assert verify(used) == (0, [GOOD.strip()])
    (used.failed / "bad.json").write_bytes(statuses(report(4)))
    used.rows(f"{SCHEMA}; UPDATE rejected_records SET edited = %s WHERE position = 1", [EDITED])
    assert used.command("replay", "failed", "bad.json").returncode == 0
    assert used.command("replay", "rejected").stdout.endswith("2 records: 1 loaded, 1 still rejected\n")
    assert verify(used) == (0, [GOOD.strip()])


def test_a_running_daemon_adds_up(used: Daemon) -> None:
    used.start()
    used.drop("vehicles_status_3.json", statuses(report(9)))
    used.until_empty()
    assert verify(used) == (0, [GOOD.strip()])


@pytest.mark.parametrize(
    ("change", "flaws"),
    [
        (
            "DELETE FROM vehicle_status_history WHERE report_time < '2022-05-05 22:00:02'",
            ["file {status}: 1 row stored, 2 loaded: was a partition dropped?"],
        ),
        (
            "DROP TABLE vehicle_status_history_20220505",
            [
                "file {status}: 0 rows stored, 2 loaded: was a partition dropped?",
                "file {status2}: 0 rows stored, 1 loaded: was a partition dropped?",
                f"vehicle {VEHICLE}: vehicle_status is newer than the history: was a partition dropped?",
            ],
        ),
        (
            "INSERT INTO objects_detection_events SELECT 'v', detection_time, object_type, 1, null, file_id "
            "FROM objects_detection_events LIMIT 1",
            [
                "file {detection}: 3 rows stored, only 2 loaded",
                "2022-06-05: detections_hourly has 1 detection of 2 objects for hours with 2 of 3; "
                "was a partition dropped? select mobileye_data.recount_hours('2022-06-05')",
            ],
        ),
        (
            "INSERT INTO objects_detection_events VALUES ('v', '2022-01-01Z', 'x', 1, null, 999)",
            [
                "file 999: 1 row, but it is not in the ledger",
                "2022-01-01: detections_hourly has 0 detections of 0 objects for hours with 1 of 1; "
                "was a partition dropped? select mobileye_data.recount_hours('2022-01-01')",
            ],
        ),
        (
            "DELETE FROM rejected_records WHERE position = 1",
            ["file {status2}: 0 rejected records stored, 1 in the ledger"],
        ),
        (
            "INSERT INTO rejected_records VALUES (999, 0, '$', 'invalid', '', '1')",
            ["file 999: 1 rejected record, but it is not in the ledger"],
        ),
        (
            "UPDATE vehicle_status SET status = 'lost'",
            [f"vehicle {VEHICLE}: vehicle_status is not the newest of the history"],
        ),
        (
            "UPDATE vehicle_status SET report_time = report_time - interval '1 h'",
            [f"vehicle {VEHICLE}: vehicle_status is not the newest of the history"],
        ),
        (
            "DELETE FROM vehicle_status",
            [f"vehicle {VEHICLE}: a history, but no row in vehicle_status"],
        ),
    ],
)
def test_what_does_not_add_up_in_the_tables_is_reported(used: Daemon, change: str, flaws: list[str]) -> None:
    names = {"status": "vehicles_status_1.json", "status2": "vehicles_status_2.json"}
    known = {key: f"{file_id(used, name)} ({name})" for key, name in names.items()}
    detection = used.rows(f"{SCHEMA}; SELECT file_id, name FROM ingested_files WHERE kind LIKE 'o%'")[0]
    known["detection"] = f"{detection[0]} ({detection[1]})"
    used.rows(f"{SCHEMA}; {change}")
    code, lines = verify(used)
    assert (code, sorted(lines[:-1])) == (1, sorted(flaw.format(**known) for flaw in flaws))
    assert lines[-1] in ("1 thing does not add up", f"{len(flaws)} things do not add up")


# A part --------------------------------------------------------------------------------------------

TOMORROW = "2999-01-01"


@pytest.fixture
def old_and_new(daemon: Daemon) -> Daemon:
    """One with a file of long ago, and a new one with rows of two days and a reject."""
    daemon.drop("vehicles_status_1.json", statuses(report(1), report(2, vehicle="old")))
    assert daemon.start("--once", wait=False).wait() == 0
    daemon.rows(f"{SCHEMA}; UPDATE ingested_files SET finished_at = finished_at - interval '30 days'")
    earlier = {**report(5, vehicle="late"), "report_time": "2022-05-04T22:00:00Z"}
    daemon.drop("vehicles_status_2.json", statuses(report(3), report(4, vehicle="new"), earlier, {}))
    assert daemon.start("--once", wait=False).wait() == 0
    return daemon


def verify_since(daemon: Daemon, days_ago: int) -> list[str]:
    ((since,),) = daemon.rows("SELECT to_char(now() - %s * interval '1 day', 'YYYY-MM-DD')", [days_ago])
    done = daemon.command("verify", "--since", since)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_part_of_what_was_loaded_adds_up(old_and_new: Daemon) -> None:
    assert verify_since(old_and_new, 1) == verify_since(old_and_new, 40) == [GOOD.strip()]
    assert old_and_new.command("verify", "--since", TOMORROW).stdout == GOOD


def test_since_wants_a_day_or_a_time(daemon: Daemon) -> None:
    done = daemon.command("verify", "--since", "yesterday")
    assert done.returncode == 2 and "--since is 'yesterday': it should be a day or a" in done.stderr


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ("DELETE FROM vehicle_status_history WHERE vehicle_id = 'new'", "2 rows stored, 3 loaded"),
        ("DELETE FROM vehicle_status_history WHERE vehicle_id = 'late'", "2 rows stored, 3 loaded"),
        ("DELETE FROM rejected_records", "0 rejected records stored, 1 in the ledger"),
        ("DELETE FROM vehicle_status WHERE vehicle_id = 'new'", "a history, but no row in vehicle_status"),
        (
            "UPDATE vehicle_status SET report_time = report_time - interval '1 h' WHERE vehicle_id = 'new'",
            "vehicle_status is not the newest of the history",
        ),
        (
            "UPDATE vehicle_status SET report_time = report_time + interval '1 h' WHERE vehicle_id = 'new'",
            "vehicle_status is not in the history",
        ),
    ],
)
def test_a_part_that_does_not_add_up_is_reported(old_and_new: Daemon, change: str, flaw: str) -> None:
    old_and_new.rows(f"{SCHEMA}; {change}")
    assert any(flaw in line for line in verify_since(old_and_new, 1))


def test_what_was_loaded_before_is_left_out(old_and_new: Daemon) -> None:
    old_and_new.rows(f"{SCHEMA}; DELETE FROM vehicle_status_history WHERE vehicle_id = 'old'")
    assert verify_since(old_and_new, 1) == [GOOD.strip()]
    assert "1 row stored, 2 loaded" in verify_since(old_and_new, 40)[0]


def test_totals_that_are_wrong_are_reported_with_what_to_do(used: Daemon) -> None:
    used.rows(f"{SCHEMA}; INSERT INTO ledger_totals (state, files) VALUES ('loaded', 7)")
    assert verify(used)[1][0].startswith("ledger_totals, files loaded: not the sum of the ledger; select ")
    used.rows(f"{SCHEMA}; SELECT recount_totals()")
    assert verify(used) == (0, [GOOD.strip()])


# What is resolved ---------------------------------------------------------------------------------


@pytest.fixture
def resolved(daemon: Daemon) -> Daemon:
    """One with a report and an event that were rejected, fixed and loaded; of the event a row was there."""
    daemon.drop("vehicles_status_1.json", statuses(report(1), report(2, status=5)))  # type: ignore[arg-type]
    daemon.drop("objects_detection_1.json", detections(event(1, ("cars", 2)), event(2, ("cars", -(2**40)))))
    assert daemon.start("--once", wait=False).wait() == 0
    edits = {"vehicle_status": report(2, note=0.1), "objects_detection_events": event(1)}
    for kind, edited in edits.items():
        daemon.rows(
            f"{SCHEMA}; UPDATE rejected_records SET edited = %s WHERE path LIKE %s",
            [json.encode(edited).decode(), f"$.{kind}%"],
        )
    assert daemon.command("replay", "rejected").returncode == 0
    return daemon


def test_what_is_resolved_has_its_rows(resolved: Daemon) -> None:
    assert verify(resolved) == (0, [GOOD.strip()])
    resolved.rows(f"{SCHEMA}; UPDATE rejected_records SET resolved_by = NULL")  # as before there was it
    assert verify(resolved) == (0, [GOOD.strip()])


@pytest.mark.parametrize(
    ("change", "flaws"),
    [
        (
            "DELETE FROM vehicle_status_history WHERE extra IS NOT NULL",
            ["{report}: resolved, but its row is missing: was it deleted, or a partition dropped?"],
        ),
        (
            "DELETE FROM objects_detection_events WHERE object_type = 'pedestrians'",
            ["{event}: resolved, but its row is missing: was it deleted, or a partition dropped?"],
        ),
        (
            "UPDATE vehicle_status_history SET status = 'parking' WHERE extra IS NOT NULL",
            ["{report}: resolved, but another value is stored under its key"],
        ),
        (
            "UPDATE objects_detection_events SET extra = '{}' WHERE object_type = 'cars'",
            ["{event}: resolved, but another value is stored under its key"],
        ),
        (
            "UPDATE rejected_records SET edited = NULL",
            [f"{{{what}}}: resolved, but it can't be loaded" for what in ("event", "report")],
        ),
        (
            "UPDATE rejected_records SET edited = '\"\\ud83d\"' WHERE path LIKE '$.v%'",
            ["{report}: resolved, but it can't be loaded"],
        ),
        (
            # A number beyond jsonb, which no row can have.
            """
            UPDATE rejected_records SET edited = replace(edited::text, '0.1', '1e200000')::json
            WHERE path LIKE '$.v%'
            """,
            ["{report}: resolved, but it can't be loaded"],
        ),
    ],
)
def test_what_is_resolved_without_its_row_is_reported(
    resolved: Daemon, change: str, flaws: list[str]
) -> None:
    resolved.rows(f"{SCHEMA}; {change}")
    code, lines = verify(resolved)
    files = {"report": "vehicles_status_1.json", "event": "objects_detection_1.json"}
    named = {key: f"{name}, record 1 of file {file_id(resolved, name)}" for key, name in files.items()}
    expected = [flaw.format(**named) for flaw in flaws]
    assert code == 1
    assert [line for line in lines if "resolved" in line] == expected


def put_loaded_bytes_into(folder: str) -> Callable[[Daemon], object]:
    content = statuses(report(3), {})
    return lambda daemon: (daemon.folder / folder / "again.json").write_bytes(content)


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (put_loaded_bytes_into("incoming"), "again.json: still in the watch folder, but loaded already"),
        (put_loaded_bytes_into("incoming/failed"), "again.json: in the failed folder, but loaded already"),
        (
            lambda daemon: (daemon.failed / "new.json").write_bytes(b"{}"),
            "new.json: in the failed folder, but the ledger does not have it as failed",
        ),
        (
            lambda daemon: (daemon.failed / "other.json").symlink_to("x"),
            "other.json: in the failed folder, but the ledger does not have it as failed",
        ),
        (
            lambda daemon: (daemon.failed / "bad.json").unlink(),
            "bad.json: failed, but it is not in the failed folder: was it removed?",
        ),
        (
            lambda daemon: (daemon.failed / "link.json").unlink(),
            "link.json: failed, but it is not in the failed folder: was it removed?",
        ),
    ],
)
def test_what_does_not_add_up_in_the_folders_is_reported(
    used: Daemon, change: Callable[[Daemon], object], flaw: str
) -> None:
    change(used)
    assert verify(used) == (1, [flaw, "1 thing does not add up"])


def test_a_failed_file_that_came_back_is_in_the_watch_folder(used: Daemon) -> None:
    (used.failed / "bad.json").rename(used.incoming / "once_more.json")
    assert verify(used) == (0, [GOOD.strip()])


def test_a_file_that_is_open_for_writing_is_passed_over(used: Daemon) -> None:
    with open(used.failed / "bad.json", "ab"), open(used.incoming / "new.json", "wb") as file:
        file.write(statuses(report(3), {}))
        file.flush()
        assert verify(used) == (0, [GOOD.strip()])


def test_a_file_that_is_too_large_to_be_read_is_known_by_its_name(daemon: Daemon) -> None:
    small = Daemon(daemon.folder, daemon.url, MAX_FILE_BYTES=10)
    small.drop("vehicles_status_1.json", statuses(report(1)))
    assert small.start("--once", wait=False).wait() == 1
    assert verify(small) == (0, [GOOD.strip()])


def test_what_was_removed_and_dismissed_adds_up(used: Daemon) -> None:
    (used.failed / "bad.json").unlink()
    assert verify(used)[0] == 1
    done = used.command("replay", "failed", "--dismiss", "bad.json", "incoming/failed/link.json")
    assert (done.returncode, done.stdout) == (0, "bad.json: dismissed\nlink.json: dismissed\n")
    assert verify(used) == (0, [GOOD.strip()])
    ((who, is_today),) = used.rows(
        f"{SCHEMA}; SELECT dismissed_by, now() - dismissed_at < '1 h' FROM ingested_files"
        " WHERE name = 'bad.json'"
    )
    assert who.endswith(f"@{socket.gethostname()}") and is_today
    assert (used.failed / "link.json").is_symlink()


def test_a_failure_that_is_not_there_can_not_be_dismissed(used: Daemon) -> None:
    done = used.command("replay", "failed", "--dismiss", "nope.json", "bad.json")
    assert done.returncode == 1
    assert done.stdout == "nope.json: the ledger has no open failure of it\nbad.json: dismissed\n"
    done = used.command("replay", "failed", "--dismiss")
    assert (done.returncode, done.stderr) == (2, "error: name the files that --dismiss is to acknowledge\n")
