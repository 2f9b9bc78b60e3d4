"""The daemon on a bucket, end to end: python main.py with WATCH_FOLDER=s3://…, against a real S3 server."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import json

from db.connection import Database
from tests.seaweed import Seaweed
from tests.support import Daemon, report, statuses, stopping, until

BAD = b'{"vehicle_status": [}'


class BucketDaemon(Daemon):
    """python main.py on a bucket of its own."""

    def __init__(self, folder: Path, url: str, seaweed: Seaweed, **settings: object) -> None:
        self.client = seaweed.client
        self.bucket = seaweed.bucket()
        settings = {"WATCH_FOLDER": f"s3://{self.bucket}/in", "WORKERS": 2, **settings}
        super().__init__(folder, url, **{**seaweed.environment, **settings})

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"in/{name}", Body=content)

    def all_keys(self) -> list[str]:
        """All keys but the marker."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [o["Key"] for page in pages for o in page.get("Contents", []) if o["Key"] != "in/.database"]

    def until_empty(self, seconds: float = 30.0) -> None:
        until(lambda: not self.all_keys(), seconds, f"the bucket is empty; log:\n{self.log()[-3000:]}")

    def vehicles(self) -> list[str]:
        rows = self.rows("SELECT vehicle_id FROM mobileye_data.vehicle_status ORDER BY 1")
        return [vehicle for (vehicle,) in rows]


def status_of(vehicle: str) -> bytes:
    return statuses(report(vehicle=vehicle))


@pytest.fixture
def daemon(tmp_path: Path, database: Database, seaweed: Seaweed) -> Iterator[BucketDaemon]:
    """A daemon that is not started yet."""
    with stopping(BucketDaemon(tmp_path, database.url, seaweed)) as daemon:
        yield daemon


def test_objects_are_loaded_and_deleted_also_those_that_come_later(daemon: BucketDaemon) -> None:
    daemon.put("vehicles_status_1.json", status_of("before"))
    daemon.start()
    daemon.until_empty()
    daemon.put("2026/11/vehicles_status_2.json", status_of("later"))
    daemon.until_empty()
    assert daemon.vehicles() == ["before", "later"]
    assert daemon.stop() == 0 and " stopped loaded=2 " in daemon.log() and "Traceback" not in daemon.log()


def test_once_loads_what_is_there_and_ends(daemon: BucketDaemon) -> None:
    for n in range(150):
        daemon.put(f"vehicles_status_{n}.json", status_of(f"{n:03}"))
    assert daemon.start("--once", wait=False).wait() == 0
    assert len(daemon.vehicles()) == 150 and daemon.all_keys() == []


def test_a_bad_object_goes_below_failed_with_its_reason_and_others_are_loaded(daemon: BucketDaemon) -> None:
    daemon.put("vehicles_status_1.json", BAD)
    daemon.put("vehicles_status_2.json", status_of("good"))
    daemon.put("vehicles_status_3.json", status_of("cut off")[:-5])  # an object is whole from the beginning
    assert daemon.start("--once", wait=False).wait() == 1
    assert daemon.vehicles() == ["good"]
    keys = daemon.all_keys()
    assert len(keys) == 4 and all(key.startswith("in/failed/vehicles_status_") for key in keys)
    assert sum(key.endswith(".reason.txt") for key in keys) == 2
    assert f" moved_to=s3://{daemon.bucket}/in/failed/vehicles_status_1-" in daemon.log()
    assert daemon.start("--once", wait=False).wait() == 0  # what failed is not found again


def test_a2_markers_of_folders_and_neighbours_of_the_prefix_are_not_touched(daemon: BucketDaemon) -> None:
    keys = ["in/sub/", "inner/x.json", "in/notes.txt", "in/.hidden.json", "in/half.json.part"]
    for key in keys:
        daemon.client.put_object(Bucket=daemon.bucket, Key=key, Body=b"")
    daemon.put("vehicles_status_1.json", status_of("good"))
    assert daemon.start("--once", wait=False).wait() == 0
    assert daemon.vehicles() == ["good"]
    assert sorted(daemon.all_keys()) == sorted(keys)


def test_the_ledger_knows_the_object_and_its_version(daemon: BucketDaemon) -> None:
    daemon.client.put_bucket_versioning(Bucket=daemon.bucket, VersioningConfiguration={"Status": "Enabled"})
    put = {"Bucket": daemon.bucket, "Key": "in/u/vehicles_status_1.json"}
    version = daemon.client.put_object(**put, Body=status_of("good"))["VersionId"]
    of_bad = daemon.client.put_object(Bucket=daemon.bucket, Key="in/bad.json", Body=BAD)["VersionId"]
    assert daemon.start("--once", wait=False).wait() == 1
    found = daemon.rows("SELECT name, origin, origin_version FROM mobileye_data.ingested_files ORDER BY 1")
    assert found[1] == (
        "u/vehicles_status_1.json",
        f"s3://{daemon.bucket}/in/u/vehicles_status_1.json",
        version,
    )
    assert found[0] == ("bad.json", f"s3://{daemon.bucket}/in/bad.json", of_bad)


def test_status_counts_what_waits(daemon: BucketDaemon) -> None:
    for n in range(3):
        daemon.put(f"vehicles_status_{n}.json", status_of(f"{n}"))
    daemon.put("failed/vehicles_status_9.json", BAD)
    found = json.decode(daemon.command("status", "--json").stdout)
    waiting = found["backlog"]
    assert (waiting["files"], waiting["bytes"]) == (3, 3 * len(status_of("0")))
    assert len(waiting["oldest"]) == 3 and waiting["error"] == "" and not waiting["has_more"]


def test_a_bucket_keeps_to_its_database(daemon: BucketDaemon, empty_database: Database) -> None:
    assert daemon.start("--once", wait=False).wait() == 0
    daemon.url = None  # the embedded one
    assert daemon.start("--once", wait=False).wait() == 2
    assert f"until now the files of s3://{daemon.bucket}/in/ went into" in daemon.log()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "the secret access key is wrong"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "it does not know the access key"),
        ({"WATCH_FOLDER": "s3://no-such-bucket-here/in"}, "there is no such bucket"),
    ],
)
def test_a9_what_only_a_person_can_fix_ends_the_daemon(
    tmp_path: Path, database: Database, seaweed: Seaweed, settings: dict[str, Any], reason: str
) -> None:
    daemon = BucketDaemon(tmp_path, database.url, seaweed, **settings)
    assert daemon.start(wait=False).wait() == 2
    assert f"the bucket can't be used: {reason}" in daemon.log() and "Traceback" not in daemon.log()


def test_an_outage_of_the_bucket_is_told_and_waited_for(
    tmp_path: Path, database: Database, own_seaweed: Seaweed
) -> None:
    daemon = BucketDaemon(tmp_path, database.url, own_seaweed)
    daemon.put("vehicles_status_1.json", status_of("before"))
    daemon.start()
    daemon.until_empty()
    own_seaweed.stop()
    until(lambda: " waiting for the bucket " in daemon.log())
    own_seaweed.start()
    daemon.put("vehicles_status_2.json", status_of("after"))
    daemon.until_empty()
    assert daemon.vehicles() == ["after", "before"]
    until(lambda: " the bucket is back " in daemon.log())
    assert daemon.stop(signal.SIGTERM) == 0
