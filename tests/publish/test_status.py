"""status of a folder whose files are published: what the ledger in Kafka says, without any database."""

import json

from db.connection import Database
from tests.publish.publisher import PublisherDaemon, S, content
from tests.support import report, statuses


def test_status_shows_what_was_published_and_what_failed(publisher: PublisherDaemon) -> None:
    publisher.drop(f"{S}1.json", content(1, 40))
    publisher.drop(f"{S}2.json", statuses(report(), {"vehicle_id": "x"}))
    publisher.drop(f"{S}bad.json", b"[]")
    assert publisher.start("--once", wait=False).wait() == 1
    done = publisher.command("status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    ledger = shown["published"]["ledger"]
    assert [ledger[f"{name}_files"] for name in ("published", "failed")] == [2, 1]
    assert [ledger[name] for name in ("read", "published", "rejected")] == [42, 41, 1]
    assert {file["name"] for file in ledger["last_files"]} == {f"{S}1.json", f"{S}2.json"}
    assert [file["name"] for file in ledger["last_failures"]] == [f"{S}bad.json"]
    partitions = {
        size["topic"].partition(".")[2]: size["partitions"] for size in shown["published"]["topics"]
    }
    assert partitions == {"objects_detection_events": 6, "vehicle_status": 6, "rejects": 1, "ledger": 1}
    assert shown["totals"] is None and shown["trouble"] == ""
    text = publisher.command("status", "--check")
    assert text.returncode == 1
    assert "\npublished  2 files\nfailed     1 file, 1 in the failed folder\n" in text.stdout
    assert "\nrecords    42 = 41 published + 1 rejected\n" in text.stdout
    assert "\n1 file in the failed folder: fix and drop again, or remove\n" in text.stdout
    assert "\npython main.py publish  # starts the publisher\n" in text.stdout


def test_a_broker_that_is_away_is_one_sentence(publisher: PublisherDaemon) -> None:
    publisher.start("--once", wait=False).wait()
    publisher.set(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    done = publisher.command("status")
    assert done.returncode == 1 and "\nKafka can't be asked\n" in done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "Connection refused" in done.stderr


def test_commands_of_a_database_leave_a_folder_whose_files_are_published(
    publisher: PublisherDaemon, database: Database
) -> None:
    publisher.drop(f"{S}bad.json", b"[]")
    assert publisher.start("--once", wait=False).wait() == 1
    publisher.set(DATABASE_URL=database.url)
    into = f"the topics {publisher.topics}.* of Kafka at {publisher.broker.servers}"
    done = publisher.command("verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{publisher.incoming} is not compared: its files go into {into}\nledger, tables and folders add up\n"
    )
    done = publisher.command("replay", "failed")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"the files of {publisher.incoming} went into {into}, which is not the database" in done.stderr
    assert (publisher.failed / f"{S}bad.json").exists()
