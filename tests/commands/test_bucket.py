"""The commands with a bucket as the place where files arrive, against a real S3 server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import json

from db.connection import Database
from tests.seaweed import Seaweed
from tests.service.test_bucket import BAD, BucketDaemon, status_of
from tests.support import report, statuses, stopping, until

FIXED = status_of("fixed")


@pytest.fixture
def daemon(tmp_path: Path, database: Database, seaweed: Seaweed) -> Iterator[BucketDaemon]:
    """A daemon that is not started yet."""
    with stopping(BucketDaemon(tmp_path, database.url, seaweed)) as daemon:
        yield daemon


def fail(daemon: BucketDaemon, *names: str) -> list[str]:
    """Objects that have come to failed/ in the ordinary way; their names there."""
    for name in names:
        daemon.put(name, BAD)
    assert daemon.start("--once", wait=False).wait() == 1
    keys = [key.removeprefix("in/failed/") for key in daemon.all_keys()]
    return [key for key in keys if key.endswith(".json")]


def ledger(daemon: BucketDaemon) -> list[tuple[str, str]]:
    return daemon.rows("SELECT last_name, state FROM mobileye_data.ingested_files ORDER BY file_id")


def test_check_looks_at_objects_and_changes_none(daemon: BucketDaemon) -> None:
    daemon.put("vehicles_status_1.json", status_of("good"))
    daemon.put("a b+c%2B.json", BAD)
    before = daemon.all_keys()
    address = f"s3://{daemon.bucket}/in/"
    one = daemon.command("check", f"{address}vehicles_status_1.json")
    counted = "would load, 1 = 1 inserted + 0 duplicate + 0 rejected (vehicles_status)"
    assert (one.returncode, one.stderr) == (0, "")
    assert one.stdout.splitlines() == [f"{address}vehicles_status_1.json: {counted}"]
    all_below = daemon.command("check", address)
    assert all_below.returncode == 1
    assert [line.split(": ")[0] for line in all_below.stdout.splitlines()] == [
        f"{address}a b+c%2B.json",
        f"{address}vehicles_status_1.json",
    ]
    assert daemon.all_keys() == before and daemon.vehicles() == []


@pytest.mark.parametrize(
    ("address", "code", "answer"),
    [
        ("s3://{bucket}/in/nothing.json", 1, "no such file"),
        ("s3://{bucket}/nowhere/", 2, "there is no file below"),
        ("s3://no-such-bucket-here/x.json", 2, "there is no such bucket"),
    ],
)
def test_check_says_what_is_not_there(daemon: BucketDaemon, address: str, code: int, answer: str) -> None:
    done = daemon.command("check", address.format(bucket=daemon.bucket))
    assert done.returncode == code and answer in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_fixed_object_is_replayed_from_where_it_is(daemon: BucketDaemon) -> None:
    (name,) = fail(daemon, "sub/vehicles_status_1.json")
    daemon.put(f"failed/{name}", FIXED)
    done = daemon.command("replay", "failed")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{name}: loaded, 1 = 1 inserted")
    assert daemon.vehicles() == ["fixed"] and daemon.all_keys() == []
    assert ledger(daemon) == [("sub/vehicles_status_1.json", s) for s in ("failed", "loaded")]
    assert daemon.command("verify").returncode == 0


@pytest.mark.parametrize("form", ["{name}", "s3://{bucket}/in/failed/{name}", "vehicles_status_1.json"])
def test_an_object_may_be_named_as_it_is_there_or_in_the_ledger(daemon: BucketDaemon, form: str) -> None:
    names = fail(daemon, "vehicles_status_1.json", "vehicles_status_11.json")
    (name,) = (name for name in names if name.startswith("vehicles_status_1-"))
    daemon.put(f"failed/{name}", FIXED)
    done = daemon.command("replay", "failed", form.format(name=name, bucket=daemon.bucket))
    assert done.returncode == 0 and "1 file: 1 loaded, 0 not" in done.stdout


def test_what_fails_again_keeps_one_object_and_one_note(daemon: BucketDaemon) -> None:
    (name,) = fail(daemon, "vehicles_status_1.json")
    before = daemon.all_keys()
    assert daemon.command("replay", "failed").returncode == 1
    assert daemon.all_keys() == before  # the same bytes
    daemon.put(f"failed/{name}", BAD + b" ")
    done = daemon.command("replay", "failed")
    assert done.returncode == 1 and "failed again" in done.stdout
    keys = daemon.all_keys()
    assert len(keys) == 2 and keys[1] == f"{keys[0]}.reason.txt" and keys != before
    assert daemon.command("replay", "failed", "nothing.json").returncode == 1


def test_an_address_elsewhere_is_refused(daemon: BucketDaemon) -> None:
    done = daemon.command("replay", "failed", "s3://elsewhere/in/failed/x.json")
    assert done.returncode == 2
    assert (
        done.stderr == f"error: s3://elsewhere/in/failed/x.json is not in s3://{daemon.bucket}/in/failed/\n"
    )


def test_a_failure_is_dismissed(daemon: BucketDaemon) -> None:
    (name,) = fail(daemon, "vehicles_status_1.json")
    done = daemon.command("replay", "failed", "--dismiss", name)
    assert (done.returncode, done.stdout) == (0, f"{name}: dismissed\n")
    found = json.decode(daemon.command("status", "--json").stdout)
    assert found["totals"]["open_failures"] == 0


def test_verify_finds_what_does_not_add_up(daemon: BucketDaemon) -> None:
    daemon.put("vehicles_status_1.json", status_of("one"))
    (name,) = fail(daemon, "vehicles_status_2.json")
    assert daemon.command("verify").returncode == 0
    daemon.put("again.json", status_of("one"))
    daemon.put("failed/stray.json", BAD + b" ")
    daemon.client.delete_object(Bucket=daemon.bucket, Key=f"in/failed/{name}")
    done = daemon.command("verify")
    assert done.returncode == 1
    assert sorted(done.stdout.splitlines()) == [
        "3 things do not add up",
        "again.json: still in the watch folder, but loaded already",
        "stray.json: in the failed folder, but the ledger does not have it as failed",
        "vehicles_status_2.json: failed, but it is not in the failed folder: was it removed?",
    ]


def test_status_sees_the_daemon_and_names_the_commands(daemon: BucketDaemon) -> None:
    found = json.decode(daemon.command("status", "--json").stdout)
    assert found["daemon"]["is_running"] is False
    assert daemon.command("status", "--check").returncode == 1
    daemon.start()
    until(lambda: json.decode(daemon.command("status", "--json").stdout)["daemon"]["is_running"])
    assert daemon.command("status", "--check").returncode == 0
    daemon.put("bad.json", BAD)
    until(lambda: " failed " in daemon.log())
    commands = [
        step["command"] for step in json.decode(daemon.command("status", "--json").stdout)["next_steps"]
    ]
    assert commands == [
        f"python main.py check s3://{daemon.bucket}/in/failed/",
        "python main.py replay failed bad.json",
        "python main.py replay failed --dismiss bad.json",
    ]
    assert daemon.stop() == 0
    assert "not running" in daemon.command("status").stdout


def test_the_demo_writes_objects_that_the_daemon_loads(daemon: BucketDaemon) -> None:
    done = daemon.command("demo", "--rate", "0", "--count", "6", "--records", "3")
    assert done.returncode == 0 and f"into s3://{daemon.bucket}/in/" in done.stderr
    assert len(daemon.all_keys()) == 6
    assert daemon.start("--once", wait=False).wait() == 0
    assert daemon.all_keys() == []


def test_loaded_objects_are_archived_by_the_day_of_their_arrival(daemon: BucketDaemon) -> None:
    daemon.set(ON_LOADED="archive", ARCHIVE_FOLDER=f"s3://{daemon.bucket}/in/done")
    daemon.put("vehicles_status_1.json", statuses(report(vehicle="one")))
    arrived = daemon.client.head_object(Bucket=daemon.bucket, Key="in/vehicles_status_1.json")["LastModified"]
    for _ in range(2):  # what is archived is not found again
        assert daemon.start("--once", wait=False).wait() == 0
    (key,) = daemon.all_keys()
    assert key.startswith(f"in/done/{arrived:%Y-%m-%d}/vehicles_status_1-")
    assert daemon.vehicles() == ["one"] and daemon.command("verify").returncode == 0
