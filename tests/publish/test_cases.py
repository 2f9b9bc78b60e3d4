"""The cases C1 to C11: what goes wrong while files are published, and that each is there once in the end."""

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Producer

from tests.kafka import Broker, unique
from tests.kafka_proxy import END_TRANSACTION, PRODUCE, WRITE_MARKERS, Disturbed
from tests.publish.bucket_publisher import BucketPublisher
from tests.publish.publisher import PublisherDaemon, S, content, file_of, values
from tests.seaweed import Seaweed
from tests.support import detections, event, report, statuses, until
from tests.topics import each_message, is_blocked, sent

HOUR = 3_600_000


def drop_files(publisher: PublisherDaemon, files: int, records: int) -> Counter[str]:
    """Drops files, and returns what they hold."""
    for number in range(files):
        publisher.drop(f"{S}{number:03}.json", content(number, records))
    return values(*(one for number in range(files) for one in file_of(number, records)))


def kill(publisher: PublisherDaemon) -> None:
    """The publisher's workers die with it."""
    assert publisher.process is not None
    workers = publisher.workers()
    publisher.process.kill()
    publisher.process.wait()
    psutil.wait_procs(workers, 10)


def test_c1_a_file_is_whole_or_absent_and_once_wherever_it_is_killed(
    frail: PublisherDaemon, disturbed: Disturbed
) -> None:
    """Killed before and after the broker has got its messages; C3 kills it before and after it commits."""
    points = [(PRODUCE, False), (PRODUCE, True)]
    wanted: Counter[str] = Counter()
    frail.start()
    for number, (request, passes) in enumerate(points):
        has_cut = disturbed.proxy.cut_at(request, passes=passes)
        frail.drop(f"{S}{number}.json", content(number, 500))
        assert has_cut.wait(30)
        kill(frail)
        disturbed.proxy.come_back()
        frail.start()
        frail.until_empty(60)
        wanted += values(*file_of(number, 500))
        assert frail.published() == wanted


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_c1_files_are_whole_or_absent_and_once_however_often_it_is_killed(publisher: PublisherDaemon) -> None:
    dice, files, records = random.Random(1), 50, 10_000
    wanted = drop_files(publisher, files, records)
    for _ in range(100):
        publisher.start(wait=False)
        time.sleep(dice.uniform(1, 5))  # wherever it is by then
        kill(publisher)
        whole = Counter(json.loads(text)["file"] for text in publisher.published().elements())
        assert set(whole.values()) <= {records}
    publisher.start()
    publisher.until_empty(300)
    assert publisher.published() == wanted


def test_c2_what_is_frozen_beyond_the_time_out_is_published_once(frail: PublisherDaemon) -> None:
    frail.set(KAFKA_TRANSACTION_TIMEOUT_MS=5_000)
    frail.start()
    frail.drop(f"{S}first.json", content(0, 10))
    frail.until_empty()
    topic = f"{frail.topics}.vehicle_status"
    until(lambda: not is_blocked(frail.broker, topic))
    before = sent(frail.broker, topic)
    (worker,) = frail.workers()
    frail.drop(f"{S}large.json", content(1, 5_000, text="x" * 2_000))
    until(lambda: sent(frail.broker, topic) > before, 30, "it is sending")
    worker.suspend()
    try:
        is_open = is_blocked(frail.broker, topic)
        until(lambda: not is_blocked(frail.broker, topic), 30, "the broker has aborted it")
        assert frail.left() == [f"{S}large.json"]
    finally:
        worker.resume()
    frail.until_empty(60)
    assert is_open
    assert frail.published() == values(*file_of(0, 10), *file_of(1, 5_000, text="x" * 2_000))
    assert " another publisher " not in frail.log()


@pytest.mark.parametrize("passes", [True, False], ids=["committed", "aborted"])
def test_c3_the_outcome_of_a_commit_without_an_answer_is_read_from_the_ledger(
    frail: PublisherDaemon, disturbed: Disturbed, passes: bool
) -> None:
    frail.start()
    frail.drop(f"{S}0.json", content(0, 10))
    frail.until_empty()
    has_cut = disturbed.proxy.cut_at(END_TRANSACTION, passes=passes)
    frail.drop(f"{S}1.json", content(1, 10))
    assert has_cut.wait(30)
    (worker,) = frail.workers()
    worker.kill()
    disturbed.proxy.come_back()
    frail.until_empty(60)
    assert frail.published() == values(*file_of(0, 10), *file_of(1, 10))
    assert (" duplicate file=vehicles_status_1.json" in frail.log()) is passes


@pytest.mark.slow
@pytest.mark.parametrize("passes", [True, False], ids=["committed", "aborted"])
def test_c3_the_same_without_a_kill(frail: PublisherDaemon, disturbed: Disturbed, passes: bool) -> None:
    frail.start()
    frail.drop(f"{S}0.json", content(0, 10))
    frail.until_empty()
    has_cut = disturbed.proxy.cut_at(END_TRANSACTION, passes=passes)
    frail.drop(f"{S}1.json", content(1, 10))
    assert has_cut.wait(30)
    until(lambda: " waiting for Kafka " in frail.log(), 60, "the commit is given up")
    disturbed.proxy.come_back()
    frail.until_empty(90)
    assert frail.published() == values(*file_of(0, 10), *file_of(1, 10))


def test_c4_of_two_publishers_of_a_folder_the_older_ends(publisher: PublisherDaemon, broker: Broker) -> None:
    """Whatever DATA_FOLDER they have: the name of the publisher is in the folder."""
    publisher.start()
    publisher.drop(f"{S}0.json", content(0, 10))
    publisher.until_empty()
    newer = PublisherDaemon(publisher.folder / "newer", broker, publisher.topics)
    newer.set(WATCH_FOLDER=publisher.incoming)
    newer.start()
    try:
        count = 1
        while publisher.process is not None and publisher.process.poll() is None:  # who gets a file is chance
            publisher.drop(f"{S}{count}.json", content(count, 10))
            publisher.until_empty()
            count += 1
        assert publisher.wait() == 2
        assert "another publisher with the same transactional.id" in publisher.log()
        assert newer.stop() == 0
        assert " waiting for Kafka " not in newer.log()
    finally:
        if newer.process is not None:
            newer.stop()
    assert publisher.published() == values(*(one for number in range(count) for one in file_of(number, 10)))


def test_c5_a_record_too_large_for_its_topic_is_rejected_and_the_others_arrive(
    publisher: PublisherDaemon, broker: Broker
) -> None:
    broker.make_topic(f"{publisher.topics}.vehicle_status", 6, max_message_bytes="1000000")
    large = report(vehicle="large", text="x" * 2_000_000)
    usual = file_of(0, 2_000)
    publisher.drop(f"{S}0.json", statuses(*usual[:1_000], large, *usual[1_000:]))
    publisher.start("--once", "--plain", wait=False)
    assert publisher.wait() == 0, publisher.log()
    assert publisher.published() == values(*usual)
    (reject,) = publisher.topic("rejects")
    assert (reject.value["reason"], reject.value["path"]) == ("refused", "$.vehicle_status[1000]")
    assert reject.value["original"] == large
    assert "max.message.bytes of" in reject.value["detail"]


def test_c6_a_broker_that_is_killed_and_comes_back_is_waited_for(
    frail: PublisherDaemon, disturbed: Disturbed
) -> None:
    frail.set(KAFKA_TRANSACTION_TIMEOUT_MS=10_000)  # what can't be sent is given up as soon
    frail.start()
    wanted = drop_files(frail, 2, 1_000)
    frail.until_empty()
    until(lambda: not frail.is_blocked(), what="the broker has ended the transaction everywhere")
    disturbed.broker.stop(signal.SIGKILL)
    wanted += values(*file_of(7, 1_000))
    frail.drop(f"{S}7.json", content(7, 1_000))
    until(lambda: " waiting for Kafka " in frail.log(), 60, "it waits")
    assert frail.left() == [f"{S}7.json"]
    disturbed.broker.start()
    frail.until_empty(60)
    until(lambda: " Kafka is back " in frail.log(), 20, "it says so")
    assert frail.published() == wanted


@pytest.mark.slow
def test_c6_a_transaction_that_the_broker_forgets_to_end_is_not_ended_by_the_next_one(
    frail: PublisherDaemon, disturbed: Disturbed
) -> None:
    """A broker that comes back after a kill takes partitions without a leader for deleted ones."""
    frail.set(KAFKA_TRANSACTION_TIMEOUT_MS=10_000)
    frail.start()
    frail.drop(f"{S}0.json", content(0, 10))
    frail.until_empty()
    until(lambda: not frail.is_blocked(), what="the broker has ended the transaction everywhere")
    has_cut = disturbed.proxy.cut_at(WRITE_MARKERS, passes=False)  # the broker's own, to itself
    frail.drop(f"{S}1.json", content(1, 10))
    assert has_cut.wait(30)
    disturbed.broker.stop(signal.SIGKILL)
    (worker,) = frail.workers()
    worker.kill()
    disturbed.broker.start()
    disturbed.proxy.come_back()
    frail.drop(f"{S}2.json", content(2, 10))
    until(lambda: "is blocked by an open transaction at offset" in frail.log(), 90, "it says so")
    assert frail.is_blocked() and f"{S}2.json" in frail.left()
    assert frail.published() == values(*file_of(0, 10))
    assert frail.stop() == 0


@pytest.mark.slow
def test_c6_a_broker_that_is_away_is_waited_for_with_a_bucket(
    tmp_path: Path, disturbed: Disturbed, seaweed: Seaweed
) -> None:
    """With messages on their way: their commit is given up after 30 s."""
    publisher = BucketPublisher(tmp_path, disturbed.broker, seaweed, unique("frail"))
    disturbed.proxy.come_back()
    has_cut = disturbed.proxy.cut_at(PRODUCE, passes=True)
    publisher.put(f"{S}0.json", content(0, 1_000))
    publisher.start(wait=False)
    assert has_cut.wait(30)
    try:
        until(lambda: " waiting for Kafka " in publisher.log(), 60, "it waits")
        assert len(publisher.keys()) == 1
        disturbed.proxy.come_back()
        publisher.until_empty(60)
    finally:
        publisher.stop()
    assert publisher.published() == values(*file_of(0, 1_000))


def test_c7_records_are_kept_by_the_time_of_their_arrival_not_of_their_events(
    publisher: PublisherDaemon, broker: Broker
) -> None:
    topics = [f"{publisher.topics}.objects_detection_events", f"{publisher.topics}.old"]
    for topic in topics:
        broker.make_topic(topic, retention_ms=str(HOUR), segment_ms="100")
    publisher.set(MAX_FUTURE_HOURS=0)
    dated = [event() | {"detection_time": f"{year}-01-01T00:00:00Z"} for year in (1970, 2055)]
    before = int(time.time() * 1000)
    for number, one in enumerate(dated):
        publisher.drop(f"objects_detection_{number}.json", detections(one))
    publisher.start("--once", "--plain", wait=False)
    assert publisher.wait() == 0, publisher.log()
    # The broker deletes at once what bears an old time: else this would prove nothing.
    producer = Producer({"bootstrap.servers": broker.servers, "log_level": 0})
    producer.produce(topics[1], b"{}", timestamp=1)
    producer.flush(30)
    until(lambda: not publisher.topic("old"), 30, "the broker has deleted the old message")
    assert publisher.published("objects_detection_events") == values(*dated)
    assert all(found.time >= before for found in publisher.topic("objects_detection_events"))


def test_c8_a_large_file_goes_in_parts_and_after_a_kill_on_from_the_last(
    frail: PublisherDaemon, disturbed: Disturbed
) -> None:
    count, name = 20_000, f"{S}large.json"
    frail.set(KAFKA_TRANSACTION_TIMEOUT_MS=15_000)
    frail.start()
    # The first try ends when the file is found to be too large for one transaction, the second one is a part.
    has_cut = disturbed.proxy.cut_at(END_TRANSACTION, passes=True, spared=1)
    frail.drop(name, content(0, count, text="x" * 2_000))
    assert has_cut.wait(60)
    (worker,) = frail.workers()
    assert worker.memory_info().rss < 300 * 1024 * 1024
    kill(frail)
    disturbed.proxy.come_back()
    part = frail.ledger()[name]
    assert part["state"] == "in parts" and part["read"] == part["next_element"] > 5_000
    assert len(frail.topic("vehicle_status")) == part["next_element"] < count
    frail.start()
    frail.until_empty(60)
    found = Counter(one.value["part"] for one in frail.topic("vehicle_status"))
    assert len(found) == count and set(found.values()) == {1}
    published = frail.ledger()[name]
    assert published == published | {"state": "published", "published": count, "read": count}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_c8_the_memory_for_a_file_of_2_gb_is_flat_and_after_a_kill_it_goes_on(
    publisher: PublisherDaemon,
) -> None:
    count, name = 1_000_000, f"{S}large.json"
    write_large(publisher, name, count)
    publisher.start()
    topic, memory = f"{publisher.topics}.vehicle_status", list[int]()

    def next_element() -> int:
        time.sleep(0.5)  # a look at the ledger is dear
        memory.extend(worker.memory_info().rss for worker in publisher.workers())
        return int(publisher.ledger().get(name, {}).get("next_element", 0))

    until(lambda: next_element() > count // 3, 600, "a third is committed")
    kill(publisher)
    part = publisher.ledger()[name]
    publisher.start()
    until(lambda: next_element() > part["next_element"], 600, "it goes on")
    until(lambda: not publisher.left() or not next_element(), 1200, publisher.log()[-600:])
    publisher.until_empty(60)
    assert max(memory) < 300 * 1024 * 1024
    found = Counter(one.value["part"] for one in each_message(publisher.broker, topic))
    assert len(found) == count and set(found.values()) == {1}
    entry = publisher.ledger()[name]
    assert (entry["state"], entry["read"], entry["published"]) == ("published", count, count)


def write_large(publisher: PublisherDaemon, name: str, count: int) -> None:
    """Writes a file of 2 kB for each report, without having it in memory."""
    publisher.incoming.mkdir(exist_ok=True)
    hidden = publisher.incoming / ".large.tmp"
    with open(hidden, "wb") as file:
        file.write(b'{"vehicle_status":[')
        for part in range(count):
            text = random.Random(part).randbytes(1_000).hex()
            one = report(part % 3600, vehicle=f"car-{part % 1000}", part=part, text=text)
            file.write(b"," * (part > 0) + json.dumps(one).encode())
        file.write(b"]}")
    hidden.rename(publisher.incoming / name)


def test_c9_the_statuses_of_a_vehicle_stay_in_the_order_of_their_files(publisher: PublisherDaemon) -> None:
    for number in range(60):
        publisher.drop(f"{S}{number:03}.json", statuses(*(report(n, file=number, n=n) for n in range(5))))
    publisher.start("--once", "--plain", wait=False)
    assert publisher.wait() == 0, publisher.log()
    found = publisher.topic("vehicle_status")
    assert len({one.partition for one in found}) == 1
    assert [(one.value["file"], one.value["n"]) for one in found] == [
        (file, n) for file in range(60) for n in range(5)
    ]


def test_c10_the_same_bytes_are_published_once_as_long_as_the_ledger_knows_them(
    publisher: PublisherDaemon, broker: Broker
) -> None:
    publisher.start()
    for name in ("0", "again"):
        publisher.drop(f"{S}{name}.json", content(0, 10))
        publisher.until_empty()
    assert publisher.published() == values(*file_of(0, 10))
    assert publisher.stop() == 0
    publisher.start()
    publisher.drop(f"{S}later.json", content(0, 10))
    publisher.until_empty()
    assert publisher.stop() == 0
    assert publisher.published() == values(*file_of(0, 10))
    # Retention takes the ledger's entry: its horizon is over.
    ledger = f"{publisher.topics}.ledger"
    broker.delete_before(ledger, 0, publisher.topic("ledger")[-1].offset + 1)
    publisher.start()
    publisher.drop(f"{S}beyond.json", content(0, 10))
    publisher.until_empty()
    assert publisher.published() == values(*file_of(0, 10), *file_of(0, 10))


def test_c11_what_is_invalid_is_in_the_topic_of_rejects_and_the_counts_add_up(
    publisher: PublisherDaemon,
) -> None:
    wrong = [{"vehicle_id": "a"}, 7, report() | {"status": ""}]
    publisher.drop(f"{S}0.json", statuses(report(0), *wrong, report(1)))  # type: ignore[arg-type]
    bad = event(0, ("cars", 1), ("signs", 2), level=1.5)
    bad["detections"][1]["object_value"] = "many"
    publisher.drop("objects_detection_0.json", detections(bad))
    publisher.start("--once", "--plain", wait=False)
    assert publisher.wait() == 0, publisher.log()
    assert publisher.published() == values(report(0), report(1))
    found = {(one.value["file"], one.value["path"]): one.value for one in publisher.topic("rejects")}
    assert len(found) == 4
    assert [
        found[f"{S}0.json", f"$.vehicle_status[{place}]{field}"]["original"]
        for place, field in ((1, ""), (2, ""), (3, ".status"))
    ] == wrong
    reject = found["objects_detection_0.json", "$.objects_detection_events[0].detections[1].object_value"]
    assert reject["original"] == bad | {"detections": bad["detections"][1:], "level": "1.5"}
    assert (reject["reason"], reject["kind"], reject["position"]) == ("invalid", "objects_detection", 1)
    for entry in publisher.ledger().values():
        assert entry["read"] == entry["published"] + entry["rejected"]
