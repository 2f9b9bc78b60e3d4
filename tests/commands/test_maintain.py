"""The command, and the daemon once a day, drop what is older than RETENTION_DAYS, and empty "other"."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from db.connection import Database
from db.tables import DETECTIONS
from tests.support import Daemon, detections, event, query, report, statuses, until

GOOD = "ledger, tables and folders add up\n"
OTHER = f"SELECT count(*) FROM {DETECTIONS.full_name}_other"


def days_ago(days: int) -> str:
    return f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT12:00:00Z}"


def fill(daemon: Daemon, *ages: int) -> None:
    """Files of both kinds for some days."""
    for age in ages:
        daemon.drop(f"objects_detection_{age}.json", detections({**event(), "detection_time": days_ago(age)}))
        daemon.drop(f"vehicles_status_{age}.json", statuses({**report(), "report_time": days_ago(age)}))


@pytest.fixture
def used(daemon: Daemon) -> Daemon:
    daemon._settings["RETENTION_DAYS"] = 30
    return daemon


def ages(database: Database, table: str = "objects_detection_events") -> list[int]:
    time = "detection_time" if table.startswith("objects") else "report_time"
    statement = f"""
        SELECT DISTINCT (now() AT TIME ZONE 'UTC')::date - ({time} AT TIME ZONE 'UTC')::date
        FROM mobileye_data.{table} ORDER BY 1
        """
    return [age for (age,) in query(database.url, statement)]


def test_the_command_drops_old_days(used: Daemon, database: Database) -> None:
    fill(used, 1, 30, 31, 32, 400)
    daemon = Daemon(used.folder, database.url)
    assert daemon.start("--once", wait=False).wait() == 0
    assert daemon.command("maintain").stdout == "the tables are in order\n"
    done = used.command("maintain")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(" dropped, 2 rows\n") == 3 and done.stdout.count(" dropped, 1 row\n") == 3
    assert ages(database) == ages(database, "vehicle_status_history") == [1, 30]
    assert used.command("verify").stdout == GOOD
    assert used.command("maintain").stdout == "the tables are in order\n"


def test_the_daemon_drops_old_days_and_files_of_these_days_are_loaded(
    used: Daemon, database: Database
) -> None:
    fill(used, 1, 60)
    assert Daemon(used.folder, database.url).start("--once", wait=False).wait() == 0
    used.start()
    until(lambda: ages(database) == [1] and ages(database, "vehicle_status_history") == [1])
    used.drop("objects_detection_late.json", detections({**event(), "detection_time": days_ago(70)}))
    used.until_empty()
    assert ages(database) == [1, 70]
    assert used.stop() == 0
    assert used.log().count(" an old day was dropped table=") == 2
    assert used.command("verify").stdout == GOOD
    assert used.command("maintain").returncode == 0
    assert ages(database) == [1] and used.command("verify").stdout == GOOD


def test_what_is_held_up_is_reported(used: Daemon, database: Database) -> None:
    fill(used, 60)
    assert Daemon(used.folder, database.url).start("--once", wait=False).wait() == 0
    with closing(database.connect()) as connection, connection.cursor() as reader:
        reader.execute(f"SELECT FROM {DETECTIONS.full_name}")
        done = used.command("maintain")
    assert done.returncode == 1
    assert "are left: others read or load these tables now; try again later\n" in done.stdout


def test_rows_of_other_go_home_and_those_that_stay_are_counted(used: Daemon, database: Database) -> None:
    fill(used, 1)
    assert used.start("--once", wait=False).wait() == 0
    query(
        database.url,
        f"""
        INSERT INTO {DETECTIONS.full_name} VALUES
            ('x', now() + '2 days', 'cars', 1, NULL, 1), ('x', 'infinity', 'cars', 1, NULL, 1);
        UPDATE mobileye_data.ingested_files SET rows_inserted = rows_inserted + 2, rows_read = rows_read + 2
        WHERE file_id = 1
        """,
    )
    done = used.command("maintain")
    assert done.returncode == 1
    assert " has its partition now\n" in done.stdout
    assert done.stdout.endswith("objects_detection_events: 1 row of 1 day is left in the partition other\n")
    assert query(database.url, "SELECT table_name, rows FROM mobileye_data.rows_in_other") == [
        (DETECTIONS.name, 1)
    ]


def test_rows_that_went_to_other_are_reported(used: Daemon, database: Database) -> None:
    query(
        database.url,
        f"INSERT INTO {DETECTIONS.full_name} VALUES ('x', 'infinity', 'cars', 1, NULL, 1)",
    )
    used.start()
    until(
        lambda: (
            " warning rows went to other table=objects_detection_events rows=1 days=1 reason=" in used.log()
        )
    )
    assert used.stop() == 0
