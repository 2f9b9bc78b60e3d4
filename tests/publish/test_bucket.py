"""The publisher on a bucket, end to end: WATCH_FOLDER=s3://…, a real S3 server and a real broker."""

import gzip
import random
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kafka import Broker, unique
from tests.moto_server import running_moto
from tests.publish.bucket_publisher import BucketPublisher
from tests.publish.publisher import S, content, file_of, values
from tests.s3_proxy import S3Proxy
from tests.seaweed import Seaweed
from tests.support import statuses, stopping, until

BAD = b'{"vehicle_status": [}'

#: Longer than any test: only a message makes the publisher list again.
NEVER = 80_000


@pytest.fixture
def publisher(tmp_path: Path, broker: Broker, seaweed: Seaweed, proxy: S3Proxy) -> Iterator[BucketPublisher]:
    """A publisher behind the proxy that is not started yet."""
    with stopping(
        BucketPublisher(tmp_path, broker, seaweed, unique("bucket"), S3_ENDPOINT_URL=proxy.url)
    ) as publisher:
        yield publisher


def put_many(publisher: BucketPublisher, numbers: range) -> Counter[str]:
    """Puts objects of ten reports each, and returns what they hold."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: publisher.put(f"{S}{n:04}.json", content(n, 10)), numbers))
    return values(*(one for number in numbers for one in file_of(number, 10)))


def test_objects_become_messages_and_are_gone_and_bad_ones_go_below_failed(
    publisher: BucketPublisher,
) -> None:
    wanted = put_many(publisher, range(70))  # more than a batch
    publisher.put(f"2026/{S}a b+c.json.gz", gzip.compress(content(70, 5)))
    publisher.put(f"{S}bad.json", BAD)
    publisher.start("--once", "--plain", wait=False)
    assert publisher.wait() == 1, publisher.log()
    assert publisher.published() == wanted + values(*file_of(70, 5))
    failed = publisher.keys()
    assert len(failed) == 2 and all(key.startswith(f"in/failed/{S}bad-") for key in failed)
    assert {key.rpartition(".")[2] for key in failed} == {"json", "txt"}
    entry = publisher.ledger()[f"2026/{S}a b+c.json.gz"]
    assert (entry["state"], entry["published"]) == ("published", 5)
    assert entry["address"] == f"s3://{publisher.bucket}/in/2026/{S}a b+c.json.gz"
    assert publisher.ledger()[f"{S}bad.json"]["state"] == "failed"
    assert f" watching folder=s3://{publisher.bucket}/in/ observer=off workers=1 " in publisher.log()
    assert not (publisher.folder / "data").exists()
    shown = publisher.command("status").stdout
    assert "\npublished  71 files\nfailed     1 file, 1 in the failed folder\n" in shown


def test_a4_an_object_that_is_replaced_before_its_delete_is_published_next(
    publisher: BucketPublisher, proxy: S3Proxy
) -> None:
    def replace_once(kind: str, path: str) -> None:
        if kind == "DELETE" and path.endswith("_1.json"):
            proxy.fault = lambda kind, path: None
            publisher.put(f"{S}1.json", content(2, 10))

    publisher.put(f"{S}1.json", content(1, 10))
    proxy.fault = replace_once
    publisher.start()
    publisher.until_empty()
    assert publisher.published() == values(*file_of(1, 10), *file_of(2, 10))


def test_a6_killed_between_commit_and_delete_it_publishes_nothing_twice(
    publisher: BucketPublisher, proxy: S3Proxy
) -> None:
    def kill(kind: str, path: str) -> bool:
        if kind == "DELETE" and path.endswith(".json") and publisher.process is not None:
            publisher.process.kill()
            return True
        return False

    wanted: Counter[str] = Counter()
    for number in range(2):
        is_before = number == 0  # else after it, and nobody hears of it
        publisher.put(f"{S}{number}.json", content(number, 10))
        wanted += values(*file_of(number, 10))
        proxy.fault = lambda kind, path: (503, "Killed") if is_before and kill(kind, path) else None  # noqa: B023
        proxy.cut = lambda kind, path: 0.0 if not is_before and kill(kind, path) else None  # noqa: B023
        publisher.start(wait=False)
        assert publisher.wait(30) == -signal.SIGKILL
        assert bool(publisher.keys()) is is_before
        assert publisher.published() == wanted
        proxy.fault = proxy.cut = lambda kind, path: None
        publisher.start()
        publisher.until_empty()
        assert publisher.published() == wanted
        publisher.stop()
    assert " duplicate file=vehicles_status_0.json " in publisher.log()


@pytest.mark.parametrize(
    ("objects", "kills"),
    [(20, 2), pytest.param(600, 60, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
)
def test_a6_killed_at_any_request_it_loses_and_doubles_nothing(
    publisher: BucketPublisher, proxy: S3Proxy, objects: int, kills: int
) -> None:
    dice = random.Random(6)

    def kill(kind: str, path: str) -> None:
        if dice.random() < 1 / objects and publisher.process is not None:
            publisher.process.kill()

    wanted: Counter[str] = Counter()
    for n in range(kills):
        wanted += put_many(publisher, range(n * objects, (n + 1) * objects))
        publisher.put(f"{S}bad{n}.json", BAD + b" " * n)
        proxy.fault = kill
        publisher.start(wait=False)
        assert publisher.process is not None
        process = publisher.process
        until(lambda: process.poll() is not None or not publisher.waiting(), 60)  # noqa: B023
        proxy.fault = lambda kind, path: None
        publisher.stop(signal.SIGKILL)
    publisher.start()
    until(lambda: not publisher.waiting(), 60)
    assert publisher.published() == wanted
    failed = publisher.keys()
    assert len(failed) == 2 * kills and all(key.startswith(f"in/failed/{S}bad") for key in failed)


def test_an_outage_of_the_bucket_is_told_and_waited_for(publisher: BucketPublisher, proxy: S3Proxy) -> None:
    proxy.fault = lambda kind, path: (503, "SlowDown")
    publisher.start(wait=False)
    until(lambda: publisher.log().count(" waiting for the bucket ") == 1, 30, "it waits for its marker")
    proxy.fault = lambda kind, path: None
    wanted = put_many(publisher, range(1))
    publisher.until_empty()
    proxy.fault = lambda kind, path: (503, "SlowDown")
    until(lambda: publisher.log().count(" waiting for the bucket ") == 2, 30)
    proxy.fault = lambda kind, path: None
    wanted += put_many(publisher, range(1, 2))
    publisher.until_empty()
    until(lambda: publisher.log().count(" the bucket is back ") == 2)
    assert publisher.published() == wanted
    assert publisher.stop() == 0 and " failed=0 " in publisher.log()


def test_c4_of_two_publishers_of_a_bucket_the_older_ends(
    publisher: BucketPublisher, broker: Broker, seaweed: Seaweed
) -> None:
    """On another machine, so with another DATA_FOLDER: the name of the publisher is in the bucket."""
    publisher.start()
    wanted = put_many(publisher, range(1))
    publisher.until_empty()
    newer = BucketPublisher(publisher.folder / "newer", broker, seaweed, publisher.topics)
    newer.set(WATCH_FOLDER=f"s3://{publisher.bucket}/in", DATA_FOLDER=newer.folder / "data")
    newer.start()
    try:
        count = 1
        while publisher.process is not None and publisher.process.poll() is None:  # who gets them is chance
            wanted += put_many(publisher, range(count, count + 20))
            publisher.until_empty()
            count += 20
        assert publisher.wait() == 2
        assert "another publisher with the same transactional.id" in publisher.log()
        assert newer.stop() == 0
    finally:
        if newer.process is not None:
            newer.stop()
    assert publisher.published() == wanted


def test_a13_a_message_in_the_queue_wakes_it(publisher: BucketPublisher) -> None:
    with running_moto() as moto:
        queue = moto.queue(publisher.bucket)
        queue.hear_of(publisher.bucket)
        publisher.set(S3_QUEUE_URL=queue.url, RESCAN_SECONDS=NEVER)
        publisher.put("first.json", content(0, 10))
        publisher.start()
        publisher.until_empty()
        publisher.put(f"{S}1.json", content(1, 10))
        queue.put(publisher.bucket, f"in/{S}1.json")
        publisher.until_empty()
    assert publisher.published() == values(*file_of(0, 10), *file_of(1, 10))


def test_a_bucket_whose_objects_went_elsewhere_is_refused(publisher: BucketPublisher) -> None:
    assert publisher.command("publish", "--once").returncode == 0
    topics = publisher.topics
    publisher.set(KAFKA_TOPIC_PREFIX=unique("other"))
    done = publisher.command("publish", "--once")
    assert done.returncode == 2
    assert f"went into the topics {topics}.* of Kafka" in done.stderr and "--new-topics" in done.stderr
    loading = publisher.command("--once")
    assert loading.returncode == 2 and f"went into the topics {topics}.* of Kafka" in loading.stderr


def test_a_bucket_that_cannot_be_marked_is_refused(publisher: BucketPublisher, proxy: S3Proxy) -> None:
    """Nobody could end a publisher without a name."""
    proxy.fault = lambda kind, path: (403, "AccessDenied") if kind == "PUT" else None
    done = publisher.command("publish", "--once")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "can't keep the name of this publisher in s3://" in done.stderr


@pytest.mark.slow
def test_c8_a_large_object_goes_in_parts_and_after_a_kill_on_from_the_last(
    publisher: BucketPublisher,
) -> None:
    count, name = 20_000, f"{S}large.json"
    publisher.set(KAFKA_TRANSACTION_TIMEOUT_MS=15_000)
    publisher.put(name, statuses(*file_of(0, count, text="x" * 2_000)))
    publisher.start()
    until(lambda: publisher.ledger().get(name, {}).get("state") == "in parts", 60, "a part is committed")
    publisher.stop(signal.SIGKILL)
    publisher.start()
    publisher.until_empty(60)
    found = Counter(one.value["part"] for one in publisher.topic("vehicle_status"))
    assert len(found) == count and set(found.values()) == {1}
