"""Daemons on a bucket while requests fail, and several daemons on one bucket."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.connection import Database
from tests.s3_proxy import S3Proxy, running_proxy
from tests.seaweed import Seaweed
from tests.service.test_bucket import BAD, BucketDaemon, status_of
from tests.support import until


@pytest.fixture
def proxy(seaweed: Seaweed) -> Iterator[S3Proxy]:
    with running_proxy(seaweed.port) as proxy:
        yield proxy


@pytest.fixture
def daemon(tmp_path: Path, database: Database, seaweed: Seaweed, proxy: S3Proxy) -> Iterator[BucketDaemon]:
    """A daemon behind the proxy that is not started yet."""
    daemon = BucketDaemon(tmp_path, database.url, seaweed, S3_ENDPOINT_URL=proxy.url)
    yield daemon
    if daemon.process is not None:
        daemon.stop()


def put_many(daemon: BucketDaemon, count: int) -> list[str]:
    vehicles = [f"{n:04}" for n in range(count)]
    for vehicle in vehicles:
        daemon.put(f"vehicles_status_{vehicle}.json", status_of(vehicle))
    return vehicles


def test_a4_an_object_that_is_replaced_before_its_delete_is_loaded_next(
    daemon: BucketDaemon, proxy: S3Proxy
) -> None:
    def replace_once(kind: str, path: str) -> None:
        if kind == "DELETE" and path.endswith("_1.json"):
            proxy.fault = lambda kind, path: None
            daemon.put("vehicles_status_1.json", status_of("second"))

    daemon.put("vehicles_status_1.json", status_of("first"))
    proxy.fault = replace_once
    daemon.start()
    daemon.until_empty()
    assert daemon.vehicles() == ["first", "second"]


def test_a8_throttling_slows_and_fails_nothing(daemon: BucketDaemon, proxy: S3Proxy) -> None:
    chance = random.Random(8)
    proxy.fault = lambda kind, path: (503, "SlowDown") if chance.random() < 0.3 else None
    vehicles = put_many(daemon, 60)
    daemon.start()
    daemon.until_empty(90)
    assert daemon.vehicles() == vehicles
    assert daemon.stop() == 0 and " failed=0 " in daemon.log() and "Traceback" not in daemon.log()


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (400, "ExpiredToken", "the credentials have expired"),
        (403, "RequestTimeTooSkewed", "the clock of this machine is wrong"),
        (503, "SlowDown", "the server answers SlowDown"),
    ],
    ids=["a9", "a15", "a8"],
)
def test_what_passes_is_told_and_waited_for(
    daemon: BucketDaemon, proxy: S3Proxy, status: int, code: str, reason: str
) -> None:
    daemon.put("vehicles_status_1.json", status_of("before"))
    daemon.start()
    daemon.until_empty()
    proxy.fault = lambda kind, path: (status, code)
    daemon.put("vehicles_status_2.json", status_of("after"))
    until(lambda: " waiting for the bucket " in daemon.log(), 60)
    proxy.fault = lambda kind, path: None
    daemon.until_empty()
    until(lambda: " the bucket is back " in daemon.log())
    assert reason in daemon.log() and daemon.vehicles() == ["after", "before"]


def test_a_first_start_waits_for_the_bucket_before_it_makes_a_database(
    daemon: BucketDaemon, proxy: S3Proxy
) -> None:
    daemon.url = None  # the embedded one
    daemon.put("vehicles_status_1.json", status_of("one"))
    proxy.fault = lambda kind, path: (400, "ExpiredToken")
    daemon.start(wait=False)
    until(lambda: " waiting for the bucket " in daemon.log(), 60)
    assert daemon.stop() == 0 and not (daemon.folder / "data").exists()
    daemon.start(wait=False)
    until(lambda: daemon.log().count(" waiting for the bucket ") == 2, 60)
    proxy.fault = lambda kind, path: None
    daemon.until_empty(60)
    assert " the bucket is back " in daemon.log() and daemon.stop() == 0


def test_a9_an_object_that_cannot_be_deleted_is_told_and_not_got_again(
    daemon: BucketDaemon, proxy: S3Proxy
) -> None:
    proxy.fault = lambda kind, path: (403, "AccessDenied") if kind == "DELETE" else None
    daemon.put("vehicles_status_1.json", status_of("one"))
    assert daemon.start("--once", wait=False).wait() == 1
    assert daemon.vehicles() == ["one"] and "it can't be removed" in daemon.log()
    assert proxy.gets(".json") <= 2  # by each worker once


def test_a6_a_daemon_killed_at_any_request_loses_and_doubles_nothing(
    daemon: BucketDaemon, proxy: S3Proxy
) -> None:
    chance = random.Random(6)
    vehicles = put_many(daemon, 40)
    for n in range(4):
        daemon.put(f"bad_{n}.json", BAD + b" " * n)

    def kill(kind: str, path: str) -> None:
        if chance.random() < 0.04 and daemon.process is not None:
            daemon.process.kill()

    for _ in range(6):
        proxy.fault = kill
        daemon.start(wait=False)
        assert daemon.process is not None
        process = daemon.process
        until(lambda: process.poll() is not None or not waiting(daemon), 60)  # noqa: B023
        proxy.fault = lambda kind, path: None
        daemon.stop(signal.SIGKILL)
    daemon.start()
    until(lambda: not waiting(daemon), 60)
    assert daemon.vehicles() == vehicles
    failed = daemon.all_keys()
    assert len(failed) == 8 and all(key.startswith("in/failed/bad_") for key in failed)
    counts = "SELECT sum(rows_inserted) FROM mobileye_data.ingested_files"
    assert daemon.rows(counts) == [(len(vehicles),)]


def waiting(daemon: BucketDaemon) -> list[str]:
    return [key for key in daemon.all_keys() if "/failed/" not in key]


def test_a14_four_daemons_get_each_object_about_once(
    tmp_path: Path, database: Database, seaweed: Seaweed, proxy: S3Proxy
) -> None:
    first = BucketDaemon(tmp_path / "0", database.url, seaweed, S3_ENDPOINT_URL=proxy.url, WORKERS=1)
    shared = {"WATCH_FOLDER": f"s3://{first.bucket}/in", "S3_ENDPOINT_URL": proxy.url, "WORKERS": 1}
    others = [BucketDaemon(tmp_path / str(n), database.url, seaweed, **shared) for n in (1, 2, 3)]
    daemons = [first, *others]
    for daemon in daemons:
        daemon.start()
    vehicles = put_many(first, 400)
    first.until_empty(90)
    for daemon in daemons:
        daemon.stop()
    assert first.vehicles() == vehicles
    assert proxy.gets(".json") <= 1.05 * len(vehicles)
    assert sum(" loaded=0 " in daemon.log() for daemon in daemons) == 0
