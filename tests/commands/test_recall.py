"""A recall takes out all of what a file brought, or nothing, and the tables add up before and after it."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from commands import recall
from commands.recall import Choice
from db.connection import Database
from db.recall import take_out
from db.tables import TABLES
from processing.errors import TryAgain
from processing.sink import Counts
from tests.db.loading import counts, delivery, flaws, load, sink_to, write
from tests.support import VEHICLE, Daemon, detections, event, query, report, statuses, until

GOOD = "ledger, tables and folders add up\n"
LEDGER = "SELECT name, state, rows_read, rows_recalled FROM mobileye_data.ingested_files ORDER BY file_id"
LATEST = "SELECT vehicle_id, status FROM mobileye_data.vehicle_status ORDER BY 1"
OPEN = "SELECT name, position, reason FROM mobileye_data.open_rejects ORDER BY 1, 2"


@pytest.fixture
def used(daemon: Daemon) -> Daemon:
    """With files of both kinds, a rejected record, duplicates, and a file that failed."""
    daemon.drop("vehicles_status_1.json", statuses(report(1, "parking"), report(1, "driving", "b")))
    daemon.drop("objects_detection_1.json", detections(event(1), event(2)))
    assert daemon.start("--once", wait=False).wait() == 0
    daemon.drop("vehicles_status_2.json", statuses(report(2, "accident"), report(1, "parking"), {}))
    daemon.drop("bad.json", b"[]")
    assert daemon.start("--once", wait=False).wait() == 1
    return daemon


def load_again(daemon: Daemon) -> None:
    assert daemon.start("--once", wait=False).wait() == 0, daemon.log()


def recalled(daemon: Daemon, *arguments: str, code: int = 0) -> str:
    done = daemon.command("recall", *arguments)
    assert (done.returncode, done.stderr) == (code, ""), done
    assert daemon.command("verify").stdout == GOOD
    return done.stdout


def test_what_a_file_brought_goes_and_the_same_bytes_may_come(used: Daemon) -> None:
    before = used.rows(LATEST)
    output = recalled(used, "vehicles_status_2.json")
    assert output.splitlines()[-1] == "1 of 1 file recalled"
    assert "1 row, 1 rejected record taken out" in output
    assert used.rows(LATEST) == [("b", "driving"), (VEHICLE, "parking")]
    assert used.rows(OPEN) == []
    assert ("vehicles_status_2.json", "recalled", 0, 1) in used.rows(LEDGER)
    ((who,),) = used.rows(
        "SELECT recalled_by FROM mobileye_data.ingested_files WHERE recalled_at IS NOT NULL"
    )
    assert "@" in who
    status = used.command("status").stdout
    assert "recalled  vehicles_status_2.json" in status and "2 files, 1 more recalled" in status
    used.drop("again.json", statuses(report(2, "accident"), report(1, "parking"), {}))
    load_again(used)
    assert used.rows(LATEST) == before
    assert ("vehicles_status_2.json", "loaded", 3, 1) in used.rows(LEDGER)
    assert used.command("verify").stdout == GOOD


def test_a_corrected_file_may_come(used: Daemon) -> None:
    recalled(used, "vehicles_status_1.json", "objects_detection_1.json")
    used.drop("vehicles_status_1.json", statuses(report(1, "driving"), report(1, "parking", "b")))
    load_again(used)
    assert used.rows(LATEST) == [("b", "parking"), (VEHICLE, "accident")]
    assert used.rows("SELECT count(*) FROM mobileye_data.objects_detection_events") == [(0,)]
    assert recalled(used, "vehicles_status_1.json")


def test_a_dry_run_says_what_would_go_and_changes_nothing(used: Daemon, database: Database) -> None:
    before = counts(database), used.rows(LEDGER)
    output = recalled(used, "--since", "2000-01-01", "--dry-run")
    assert output.count("would go\n") == 3 and output.endswith(
        "3 files would be recalled, nothing was changed\n"
    )
    assert "(vehicles_status_2.json): 1 row, 1 rejected record would go" in output
    assert (counts(database), used.rows(LEDGER)) == before


def test_all_files_since_a_time_go(used: Daemon, database: Database) -> None:
    ((time,),) = used.rows(
        "SELECT started_at::text FROM mobileye_data.ingested_files WHERE name = 'vehicles_status_2.json'"
    )
    assert recalled(used, "--since", time).endswith("1 of 1 file recalled\n")
    assert recalled(used, "--since", "2000-01-01T00:00Z").endswith("2 of 2 files recalled\n")
    assert counts(database) == {**dict.fromkeys(counts(database), 0), "ingested_files": 4}
    output = recalled(used, "--since", "2000-01-01", code=1)
    assert output == "no file was loaded since 2000-01-01 00:00:00 UTC\n"


def test_later_files_that_had_duplicates_are_reported(used: Daemon) -> None:
    ((later,),) = used.rows("SELECT file_id FROM mobileye_data.ingested_files WHERE rows_duplicate > 0")
    told = "had 1 duplicate: those of recalled rows are missing now; to have them back, recall these files, "
    assert f"{told}too, and deliver them again: {later} (vehicles_status_2.json)" in recalled(
        used, "vehicles_status_1.json"
    )
    assert used.rows(LATEST) == [(VEHICLE, "accident")]
    assert "duplicates" not in recalled(used, "vehicles_status_2.json")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["nothing.json"], "nothing.json: the ledger does not have it\n"),
        (["bad.json"], "bad.json: it is not loaded, but failed\n"),
        (["vehicles_status_1.json", "x.json"], "x.json: the ledger does not have it\n"),
        (["--file-id", "99"], "file 99: the ledger does not have it\n"),
    ],
)
def test_what_is_not_loaded_is_named_and_nothing_changes(
    used: Daemon, database: Database, arguments: list[str], answer: str
) -> None:
    before = counts(database)
    assert recalled(used, *arguments, code=1) == answer
    assert counts(database) == before


def test_a_name_of_several_loaded_files_is_refused_and_their_numbers_are_listed(used: Daemon) -> None:
    used.drop("vehicles_status_1.json", statuses(report(9)))
    load_again(used)
    answer = recalled(used, "vehicles_status_1.json", code=1)
    assert "several loaded files had this name; choose by --file-id: " in answer
    number = answer.partition("--file-id: ")[2].split()[0]
    assert recalled(used, "--file-id", number)
    assert recalled(used, "--file-id", number, code=1) == f"file {number}: it is not loaded, but recalled\n"
    assert recalled(used, "vehicles_status_1.json")


@pytest.mark.parametrize("arguments", [[], ["x.json", "--since", "2000-01-01"], ["--file-id", "1", "x.json"]])
def test_files_are_chosen_in_one_way(used: Daemon, arguments: list[str]) -> None:
    done = used.command("recall", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: choose the files by their names, by --file-id or by --since, one of these\n"


def test_a_time_that_cannot_be_read_is_refused(used: Daemon) -> None:
    done = used.command("recall", "--since", "yesterday")
    assert (done.returncode, done.stderr[:44]) == (2, "error: --since is 'yesterday': it should be ")


# Rejected records -------------------------------------------------------------------------------------


def edit(daemon: Daemon, position: int, text: str) -> None:
    daemon.rows("UPDATE mobileye_data.rejected_records SET edited = %s WHERE position = %s", [text, position])


def replay(daemon: Daemon) -> str:
    return daemon.command("replay", "rejected").stdout


FIXED = '{"vehicle_id": "c", "report_time": "2022-05-05T22:00:01Z", "status": "driving"}'


def test_replayed_records_go_with_their_file(used: Daemon) -> None:
    edit(used, 2, FIXED)
    assert replay(used) == "1 record: 1 loaded, 0 still rejected\n"
    output = recalled(used, "vehicles_status_2.json")
    assert "2 rows, 1 rejected record, 1 replay of these taken out" in output
    assert used.rows(LATEST) == [("b", "driving"), (VEHICLE, "parking")]
    assert len(used.rows("SELECT 1 FROM mobileye_data.ingested_files WHERE state = 'recalled'")) == 2


def test_the_record_of_a_recalled_replay_is_open_again(used: Daemon) -> None:
    edit(used, 2, FIXED)
    replay(used)
    ((number,),) = used.rows("SELECT resolved_by FROM mobileye_data.rejected_records")
    assert "1 row, 0 rejected records taken out" in recalled(used, "--file-id", str(number))
    assert used.rows(OPEN) == [("vehicles_status_2.json", 2, "invalid")]
    assert replay(used) == "1 record: 1 loaded, 0 still rejected\n"
    assert used.command("verify").stdout == GOOD


def test_a_record_that_was_a_duplicate_of_a_recalled_row_is_open_again(used: Daemon) -> None:
    edit(used, 2, FIXED.replace('"c"', '"b"').replace("01Z", "01.546Z"))
    assert "a duplicate of a row of file" in replay(used)
    recalled(used, "vehicles_status_1.json")
    assert used.rows(OPEN) == [("vehicles_status_2.json", 2, "invalid")]
    assert replay(used) == "1 record: 1 loaded, 0 still rejected\n"
    assert used.command("verify").stdout == GOOD


# Beside loads -----------------------------------------------------------------------------------------


def run(database: Database, **choice: Any) -> list[str]:
    lines: list[str] = []
    with closing(database.connect()) as connection:
        recall.run(connection, Choice(**choice), "me", lines.append)
    return lines


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with closing(database.connect()) as connection:
        yield connection


def last_id(database: Database) -> int:
    return int(query(database.url, "SELECT max(file_id) FROM mobileye_data.ingested_files")[0][0])


def is_waiting(database: Database) -> bool:
    return bool(
        query(
            database.url,
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
    )


def test_bytes_that_come_again_during_their_recall_are_loaded_again(
    database: Database, connection: Connection
) -> None:
    content = statuses(report(1), report(2))
    with sink_to(database) as sink, ThreadPoolExecutor() as threads:
        load(sink, content)
        with connection.cursor() as cursor:
            assert take_out(cursor, last_id(database), {}, "me")
        again = threads.submit(redeliver, database, content)
        until(lambda: is_waiting(database))
        connection.commit()
        with pytest.raises(TryAgain, match="recalled"):
            again.result(20)
        assert load(sink, content) == [Counts(2, 2)]
    assert flaws(database) == []


def redeliver(database: Database, content: bytes) -> None:
    with sink_to(database) as sink, sink.transaction() as transaction:
        assert transaction.loaded([delivery(content).sha256 or b""])
        transaction.redelivered(delivery(content))
        transaction.commit()


@pytest.mark.parametrize("second", [1, 3, 5], ids=["older", "between", "newer"])
def test_the_latest_status_is_right_whoever_reports_meanwhile(
    database: Database, connection: Connection, second: int
) -> None:
    with sink_to(database) as sink, ThreadPoolExecutor() as threads:
        load(sink, statuses(report(2, "kept")))
        load(sink, statuses(report(4, "recalled")))
        with connection.cursor() as cursor:
            assert take_out(cursor, last_id(database), {}, "me")
        late = threads.submit(load, sink, statuses(report(second, "late")))
        until(lambda: is_waiting(database))
        connection.commit()
        late.result(20)
    assert flaws(database) == []


@pytest.mark.parametrize("second", [1, 3, 5], ids=["older", "between", "newer"])
def test_the_latest_status_is_right_whoever_has_reported_just_before(database: Database, second: int) -> None:
    with sink_to(database) as sink, sink_to(database) as other, ThreadPoolExecutor() as threads:
        load(sink, statuses(report(2, "kept")))
        load(sink, statuses(report(4, "recalled")))
        number = last_id(database)
        with other.transaction() as transaction:
            write(transaction, statuses(report(second, "late")))
            transaction.finish()
            going = threads.submit(run, database, file_ids=[number])
            until(lambda: is_waiting(database))
            transaction.commit()
        assert going.result(20)[-1] == "1 of 1 file recalled"
    assert flaws(database) == []


def test_files_go_while_others_come_and_all_adds_up(database: Database) -> None:
    """Two sinks load overlapping files, each of which is recalled at once and loaded again."""

    def come_and_go(seed: int) -> None:
        rng = random.Random(seed)
        with sink_to(database) as sink:
            for number in range(12):
                cars = [f"v{rng.randrange(4)}" for _ in range(6)]
                reports = [report(rng.randrange(8), vehicle=car) for car in cars]
                content = statuses(*reports, {}) + b" " * (100 * seed + number)
                repeat(lambda content=content: load(sink, content))  # type: ignore[misc]
                if rng.random() < 0.6:
                    run(database, since=datetime(2000, 1, 1, tzinfo=UTC))

    with ThreadPoolExecutor() as threads:
        list(threads.map(come_and_go, (1, 2)))
    assert flaws(database) == []
    assert query(
        database.url, "SELECT count(*) > 3 FROM mobileye_data.ingested_files WHERE state = 'recalled'"
    )


def repeat(step: Callable[[], object]) -> None:
    while True:
        try:
            step()
            return
        except TryAgain:
            continue


def test_rows_of_days_that_came_after_the_look_go_too(database: Database, connection: Connection) -> None:
    with sink_to(database) as sink:
        load(sink, statuses(report(1)), detections(event(1)))
    with connection.cursor() as cursor:
        for (number,) in query(database.url, "SELECT file_id FROM mobileye_data.ingested_files"):
            taken = take_out(cursor, number, {number: {table.name: set() for table in TABLES.values()}}, "me")
            assert taken and taken.rows
    connection.commit()
    assert flaws(database) == []
