"""Daemons on a bucket while requests fail, and several daemons on one bucket."""

import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from db.claims import SLOTS
from db.connection import Database
from tests.chaos.kills import Point
from tests.chaos.moments import AFTER, BEFORE, Moments
from tests.chaos.proxy import TO_SERVER, Proxy
from tests.s3_proxy import S3Proxy
from tests.seaweed import Seaweed
from tests.service.test_bucket import BAD, BucketDaemon, status_of
from tests.support import frozen, stopping, until


@pytest.fixture
def daemon(tmp_path: Path, database: Database, seaweed: Seaweed, proxy: S3Proxy) -> Iterator[BucketDaemon]:
    """A daemon behind the proxy that is not started yet."""
    with stopping(BucketDaemon(tmp_path, database.url, seaweed, S3_ENDPOINT_URL=proxy.url)) as daemon:
        yield daemon


def put_many(daemon: BucketDaemon, count: int) -> list[str]:
    vehicles = [f"{n:04}" for n in range(count)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda v: daemon.put(f"vehicles_status_{v}.json", status_of(v)), vehicles))
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


@pytest.mark.parametrize(
    ("count", "seconds"),
    [(60, 0), pytest.param(2_000, 30, marks=[pytest.mark.slow, pytest.mark.timeout(2400)])],
)
def test_a8_throttling_slows_and_fails_nothing(
    daemon: BucketDaemon, proxy: S3Proxy, count: int, seconds: float
) -> None:
    chance = random.Random(8)
    proxy.fault = lambda kind, path: (503, "SlowDown") if chance.random() < 0.3 else None
    vehicles = put_many(daemon, count)
    daemon.start(wait=False)
    until(lambda: len(waiting(daemon)) < count / 2, 900)
    proxy.fault = lambda kind, path: (503, "SlowDown")
    until(lambda: " waiting for the bucket " in daemon.log(), 60)
    time.sleep(seconds)
    proxy.fault = lambda kind, path: (503, "SlowDown") if chance.random() < 0.3 else None
    daemon.until_empty(900)
    assert daemon.vehicles() == vehicles and " the bucket is back " in daemon.log()
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


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a6_a_daemon_killed_before_and_after_each_request_and_commit(
    tmp_path: Path, database: Database, seaweed: Seaweed, proxy: S3Proxy
) -> None:
    """With 200 objects, 20 of them bad, for each kill."""
    moments = Moments()
    proxy.fault = lambda kind, path: (503, "Killed") if moments.reached(BEFORE, kind) else None
    proxy.cut = lambda kind, path: 0.0 if moments.reached(AFTER, kind) else None
    port = urlsplit(database.url).port
    assert port is not None
    with Proxy(port).running() as link:
        link.may_pass = partial(may_pass, moments)
        url = f"{database.url.replace(str(port), str(link.port))}?sslmode=disable&gssencmode=disable"
        daemon = BucketDaemon(tmp_path, url, seaweed, S3_ENDPOINT_URL=proxy.url)
        chance, expected = random.Random(6), 0
        for moment, (call, most) in product((BEFORE, AFTER), CALLS.items()):
            for n in range(expected, expected + 180):
                daemon.put(f"vehicles_status_{n:05}.json", status_of(f"{n:05}"))
            for n in range(20):
                daemon.put(f"bad_{moment}_{call}_{n}.json", BAD + f"{call} {moment} {n}".encode())
            expected += 180
            daemon.start(wait=False)
            assert daemon.process is not None
            moments.arm(daemon.process.pid, Point(moment, call, chance.randrange(2, most)))
            daemon.wait(300)
            assert moments.is_struck
            moments.arm(0, None)
            daemon.start(wait=False)
            until(lambda: not waiting(daemon), 300)
            daemon.stop()
        assert daemon.vehicles() == [f"{n:05}" for n in range(expected)]
        failed = daemon.all_keys()
        assert len(failed) == len(CALLS) * 2 * 20 * 2  # each with its note
        counts = "SELECT sum(rows_inserted), sum(rows_duplicate) FROM mobileye_data.ingested_files"
        assert daemon.rows(counts) == [(expected, 0)]


#: The calls that a kill comes before or after, and how often each is made at least.
CALLS = {"GET": 100, "COMMIT": 4, "COPY": 15, "PUT": 15, "DELETE": 100}


def may_pass(moments: Moments, direction: str, message: bytes) -> bool:
    if direction == TO_SERVER and message.startswith(b"Q") and message[5:11] == b"COMMIT":
        return not moments.reached(BEFORE, "COMMIT")
    if direction != TO_SERVER and message.startswith(b"C") and message[5:11] == b"COMMIT":
        return not moments.reached(AFTER, "COMMIT")
    return True


def waiting(daemon: BucketDaemon) -> list[str]:
    return [key for key in daemon.all_keys() if "/failed/" not in key]


@contextmanager
def daemons_on_one(
    folder: Path, url: str, seaweed: Seaweed, proxy: S3Proxy, count: int, **settings: object
) -> Iterator[list[BucketDaemon]]:
    """Yields daemons of one bucket, each with a share of it."""
    settings = {"S3_ENDPOINT_URL": proxy.url, "WORKERS": 1, **settings}
    first = BucketDaemon(folder / "0", url, seaweed, **settings)
    shared = {"WATCH_FOLDER": f"s3://{first.bucket}/in", **settings}
    daemons = [first, *(BucketDaemon(folder / str(n), url, seaweed, **shared) for n in range(1, count))]
    for daemon in daemons:
        daemon.bucket = first.bucket
    for daemon in daemons:
        daemon.start(wait=False)
    until(lambda: len(first.rows(HELD)) == count, 120, "each has a share")
    try:
        yield daemons
    finally:
        for daemon in daemons:
            if daemon.process is not None:
                daemon.stop(signal.SIGKILL)


#: How many slots each connection of a daemon holds.
HELD = f"""
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND objid < {SLOTS}
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    GROUP BY pid
"""


def test_a14_four_daemons_get_each_object_about_once(
    tmp_path: Path, database: Database, seaweed: Seaweed, proxy: S3Proxy
) -> None:
    with daemons_on_one(tmp_path, database.url, seaweed, proxy, 4) as daemons:
        vehicles = put_many(daemons[0], 400)
        daemons[0].until_empty(90)
        assert all(daemon.stop() == 0 for daemon in daemons)
    assert daemons[0].vehicles() == vehicles
    assert proxy.gets(".json") <= 1.05 * len(vehicles)
    assert sum(" loaded=0 " in daemon.log() for daemon in daemons) == 0


def test_what_a_killed_daemon_had_is_taken_over(
    tmp_path: Path, database: Database, seaweed: Seaweed, proxy: S3Proxy
) -> None:
    """At once, and not when the bucket is listed again the next time."""
    with daemons_on_one(tmp_path, database.url, seaweed, proxy, 2, RESCAN_SECONDS=600) as (victim, other):
        until(lambda: [held for (held,) in victim.rows(HELD)] == [SLOTS // 2] * 2, 120)
        vehicles = put_many(victim, 40)
        victim.stop(signal.SIGKILL)
        victim.until_empty(40)
        assert other.vehicles() == vehicles


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a14_two_of_four_daemons_are_killed_and_one_is_frozen(
    tmp_path: Path, database: Database, seaweed: Seaweed, proxy: S3Proxy
) -> None:
    """With 5,000 objects; the one that is left takes over what the others had within 40 s."""
    with daemons_on_one(tmp_path, database.url, seaweed, proxy, 4) as daemons:
        vehicles = put_many(daemons[3], 5_000)
        until(lambda: len(waiting(daemons[3])) < 4_000, 600)
        for daemon in daemons[:2]:
            daemon.stop(signal.SIGKILL)
        with frozen(daemons[2].pid):
            since = time.monotonic()
            until(lambda: [held for (held,) in daemons[3].rows(HELD)] == [SLOTS], 60)
            free = time.monotonic() - since
            daemons[3].until_empty(600)
        assert daemons[3].vehicles() == vehicles
        gets = proxy.gets(".json") / len(vehicles)
        put_many(daemons[3], 1)  # what has woken goes on
        daemons[3].until_empty(60)
        assert all(daemon.stop() == 0 for daemon in daemons[2:])
    sys.stdout.write(f"\nA14: {gets:.3f} GETs an object, all claims free after {free:.0f} s\n")
    assert gets <= 1.05 and free <= 40
    assert daemons[3].rows("SELECT sum(rows_inserted) FROM mobileye_data.ingested_files") == [(5_000,)]
