"""The queue of a bucket wakes the daemon and no more: notifications of moto, objects of a real S3 server."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from db.connection import Database
from tests.moto_server import Moto, MotoQueue, running_moto
from tests.s3_proxy import S3Proxy, running_proxy
from tests.seaweed import Seaweed
from tests.service.test_bucket import BucketDaemon, status_of
from tests.sources.test_notifications import by_eventbridge, by_sns, direct, record
from tests.support import stopping, until

#: Keys of which moto makes the notification, and those that it does not take.
KEYS = ["a b+c%2B.json", "u/日本 é.json", f"{'k' * 200}.json"]
OTHER_KEYS = ["x//y.json", "line\nbreak.json"]

#: Longer than any test: only a message makes the daemon list again.
NEVER = 80_000


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with running_moto() as moto:
        yield moto


@pytest.fixture
def daemon(tmp_path: Path, database: Database, seaweed: Seaweed) -> Iterator[BucketDaemon]:
    """A daemon that is not started yet."""
    with stopping(BucketDaemon(tmp_path, database.url, seaweed, RESCAN_SECONDS=NEVER)) as daemon:
        yield daemon


@pytest.fixture
def queue(moto: Moto, daemon: BucketDaemon) -> MotoQueue:
    """The queue of the daemon, which hears of a bucket of the same name in moto."""
    queue = moto.queue(daemon.bucket)
    queue.hear_of(daemon.bucket)
    daemon.set(S3_QUEUE_URL=queue.url)
    return queue


def until_idle(daemon: BucketDaemon) -> None:
    """Until it has listed the bucket for the first time, and found nothing more."""
    daemon.put("first.json", status_of("first"))
    daemon.start()
    daemon.until_empty()


def test_a1_a_notification_of_each_key_wakes_the_daemon(daemon: BucketDaemon, queue: MotoQueue) -> None:
    until_idle(daemon)
    for number, key in enumerate([*KEYS, *OTHER_KEYS]):
        daemon.put(key, status_of(f"{number}"))
        if key in KEYS:
            queue.put(daemon.bucket, f"in/{key}")
        else:
            queue.send(direct(record(quote_plus(f"in/{key}", safe="/"), bucket=daemon.bucket)))
        daemon.until_empty()
    assert len(daemon.vehicles()) == 6
    until(lambda: queue.size() == 0)


ENVELOPES: dict[str, Callable[[str], str]] = {
    "direct": lambda bucket: direct(record("in/x.json", bucket=bucket)),
    "sns": lambda bucket: by_sns(direct(record("in/x.json", bucket=bucket))),
    "eventbridge": lambda bucket: by_eventbridge("in/x.json", bucket=bucket),
}


def test_a13_each_envelope_wakes_the_daemon(daemon: BucketDaemon, queue: MotoQueue) -> None:
    until_idle(daemon)
    for name, envelope in ENVELOPES.items():
        daemon.put("x.json", status_of(name))
        queue.send(envelope(daemon.bucket))
        daemon.until_empty()


def test_a13_what_says_nothing_is_deleted_and_wakes_nobody(
    daemon: BucketDaemon, queue: MotoQueue, seaweed: Seaweed
) -> None:
    with running_proxy(seaweed.port) as proxy:
        daemon.set(S3_ENDPOINT_URL=proxy.url)
        until_idle(daemon)
        before = listings(proxy)
        for _ in range(3):
            queue.send("garbage")
            queue.send({"Records": "none"})
            queue.send(by_sns("no notification"))
            queue.put(daemon.bucket, "elsewhere/x.json")
            queue.put(daemon.bucket, "in/notes.txt")
            queue.put(daemon.bucket, "in/failed/x.json")
            queue.delete(daemon.bucket, "in/x.json")
        until(lambda: queue.size() == 0)
        assert listings(proxy) == before
        queue.put(daemon.bucket, "in/gone.json")  # which is not there any more
        until(lambda: listings(proxy) > before)
        daemon.put("there.json", status_of("there"))
        queue.put(daemon.bucket, "in/there.json")
        daemon.until_empty()
    assert daemon.stop() == 0 and "Traceback" not in daemon.log() and " failed=0 " in daemon.log()


def listings(proxy: S3Proxy) -> int:
    return sum(count for (kind, _), count in proxy.counts.items() if kind == "LIST")


def test_a_notification_that_comes_while_the_bucket_is_listed_is_not_lost(
    daemon: BucketDaemon, queue: MotoQueue, seaweed: Seaweed
) -> None:
    with running_proxy(seaweed.port) as proxy:

        def arrive(kind: str, path: str) -> None:
            """Behind the back of the first listing, which the daemon still waits for."""
            if kind == "LIST":
                proxy.cut = lambda kind, path: None
                daemon.put("late.json", status_of("late"))
                queue.put(daemon.bucket, "in/late.json")
                until(lambda: queue.size() == 0)
                time.sleep(0.5)  # until it is heard, too: a shorter time would only prove less

        proxy.cut = arrive
        daemon.set(S3_ENDPOINT_URL=proxy.url)
        daemon.start(wait=False)
        until(lambda: " watching " in daemon.log(), 60)
        until(lambda: queue.size() == 0 and proxy.gets("late.json"), 60)
        daemon.until_empty()
    assert daemon.vehicles() == ["late"]


def test_a_notification_about_an_object_that_took_the_name_of_one_in_flight_is_not_lost(
    daemon: BucketDaemon, queue: MotoQueue, seaweed: Seaweed
) -> None:
    with running_proxy(seaweed.port) as proxy:

        def replace(kind: str, path: str) -> None:
            """Between its deletion and the moment at which the daemon hears of that."""
            if kind == "DELETE" and path.endswith("same.json"):
                proxy.cut = lambda kind, path: None
                before = listings(proxy)
                daemon.put("same.json", status_of("second"))
                queue.put(daemon.bucket, "in/same.json")
                until(lambda: listings(proxy) > before)
                time.sleep(0.5)  # until it is listed, too: a shorter time would only prove less

        daemon.set(S3_ENDPOINT_URL=proxy.url)
        until_idle(daemon)
        proxy.cut = replace
        daemon.put("same.json", status_of("one"))
        queue.put(daemon.bucket, "in/same.json")
        until(lambda: len(daemon.vehicles()) == 3)
        daemon.until_empty()
    assert daemon.vehicles() == ["first", "one", "second"]


def test_a13_while_the_queue_is_gone_the_listing_finds_all(daemon: BucketDaemon) -> None:
    with running_moto() as moto:
        queue = moto.queue(daemon.bucket)
        daemon.set(S3_QUEUE_URL=queue.url, RESCAN_SECONDS=1)
        until_idle(daemon)
        moto.stop()
        until(lambda: " the queue does not answer, only listing " in daemon.log())
        daemon.put("meanwhile.json", status_of("meanwhile"))
        daemon.until_empty()
        moto.start()  # which has forgotten the queue
        moto.queue(daemon.bucket)
        until(lambda: " the queue answers again" in daemon.log())
        assert daemon.log().count("the queue does not answer") == 1
    assert daemon.stop() == 0 and daemon.vehicles() == ["first", "meanwhile"]
