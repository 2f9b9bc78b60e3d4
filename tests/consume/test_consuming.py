"""Messages of topics are loaded, by the real program from a real broker."""

import gzip
import re
import signal
import time
import urllib.request
from collections import Counter

import pytest
import zstandard
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from msgspec import json

from tests.consume.consuming import EVENTS, STATUS, Fleet, reports
from tests.kafka import put
from tests.support import detections, event, free_port, report, statuses, until

#: The first test waits for the broker, too.
pytestmark = pytest.mark.timeout(300)


def test_records_and_documents_compressed_or_not_are_loaded_and_the_counts_add_up(fleet: Fleet) -> None:
    """Case D11: a document that comes twice is a duplicate, as a file is."""
    fleet.make(2)
    document = detections(event(5), event(6))
    fleet.send(EVENTS, [json.encode(event(0)), document, gzip.compress(detections(event(7)))], 0)
    fleet.send(EVENTS, [zstandard.compress(json.encode(event(8))), document], 1, compression_type="zstd")
    fleet.send(STATUS, [*reports(1, 2), b"\xef\xbb\xbf" + statuses(report(9))], 1, compression_type="lz4")
    consumer = fleet.consumer()
    fleet.until_at(EVENTS, 3, 2)
    fleet.until_at(STATUS, 0, 3)
    assert fleet.counts() == (13, 13, 0, 0)
    ((deliveries,),) = fleet.rows("SELECT max(deliveries) FROM mobileye_data.ingested_files")
    assert deliveries == 2
    assert consumer.command("verify").stdout == "ledger, tables and folders add up\n"
    shown = consumer.command("status").stdout
    assert shown.startswith("status     all is well\nloaded ")
    assert f"topic      {fleet.topic(STATUS)}, 2 partitions, 0 messages to load, moved " in shown
    assert f"group      {fleet.group}, 1 consumer: 127.0.0.1 (4 partitions)\n" in shown
    begun = time.monotonic()
    assert consumer.stop(signal.SIGINT) == 0
    assert time.monotonic() - begun < 5
    assert " stopped consuming messages=8 rows=13 rejected=0" in consumer.log()


def test_what_arrives_later_is_loaded_and_two_consumers_share_it(fleet: Fleet) -> None:
    fleet.make(2)
    port = free_port()
    one, other = fleet.consumer(METRICS_ADDRESS=f"127.0.0.1:{port}"), fleet.consumer()
    until(lambda: "reading partitions" in one.log() and "reading partitions" in other.log(), 30, fleet.logs())
    for partition in range(2):
        fleet.send(STATUS, reports(*range(partition * 100, partition * 100 + 100)), partition)
    fleet.until_at(STATUS, 100, 100)
    assert len(fleet.statuses()) == 200
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        found = re.search(r"^mobileye_messages_total (\d+)", answer.read().decode(), re.MULTILINE)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
        assert answer.read() == b"ok\n"
    assert one.stop() == other.stop() == 0
    assert found and f" stopped consuming messages={found[1]} " in one.log()


def test_the_newer_protocol_of_groups_divides_each_topic_among_the_consumers(fleet: Fleet) -> None:
    """As its assignor `range` does; the usual one may give a topic to one consumer, and one to another."""
    fleet.make(4)
    fleet.settings = {"KAFKA_GROUP_PROTOCOL": "consumer", "KAFKA_GROUP_REMOTE_ASSIGNOR": "range"}
    first, second = fleet.consumer(), fleet.consumer()
    until(lambda: divided(fleet) == [{EVENTS: 2, STATUS: 2}] * 2, 60, f"it is divided\n{fleet.logs()}")
    for partition in range(4):
        fleet.send(STATUS, reports(*range(100 * partition, 100 * partition + 100)), partition)
    fleet.until_at(STATUS, 100, 100, 100, 100)
    assert first.stop() == 0
    for partition in range(4):
        fleet.send(STATUS, reports(1000 + partition), partition)
    fleet.until_at(STATUS, 101, 101, 101, 101)
    assert second.stop() == 0
    found = re.findall(r" stopped consuming messages=(\d+) ", first.log() + second.log())
    assert found == ["200", "204"]
    assert fleet.counts() == (404, 404, 0, 0)


def divided(fleet: Fleet) -> list[dict[str, int]]:
    """How many partitions of each topic each consumer has."""
    group = fleet.broker.admin.describe_consumer_groups([fleet.group])[fleet.group].result(20)
    return [
        Counter(place.topic.rpartition(".")[2] for place in member.assignment.topic_partitions)
        for member in group.members
    ]


def test_a_bad_message_is_a_reject_with_its_place_and_its_bytes_and_can_be_replayed(fleet: Fleet) -> None:
    """Case D10."""
    fleet.make()
    deep, digits = b"[" * 20_000, json.encode(report(vehicle="d"))[:-1] + b',"n":%b}'
    values = [
        *(None, b"", b"\xff", b"null", deep, b"{", b"%b,%b" % tuple(reports(7, 8)), b"[1]"),
        *(gzip.compress(b"{}")[:-3], b'{"a":"%b"}' % (b"x" * 5_000_000), digits % (b"1" * 200_000)),
        json.encode(report(vehicle="") | {"note": "n"}),
    ]
    fleet.send(STATUS, [*reports(1), *values, *reports(2), digits % (b"1" * 4301)])
    consumer = fleet.consumer()
    count = len(values)
    fleet.until_at(STATUS, count + 3)
    assert fleet.statuses() == [("d", "driving"), ("v000001", "driving"), ("v000002", "driving")]
    rows = fleet.rows(
        "SELECT partition, message_offset, message FROM mobileye_data.rejected_records ORDER BY 2"
    )
    kept = [(place, offset, value and bytes(value)) for place, offset, value in rows]
    assert kept == [(0, offset, value) for offset, value in enumerate(values, 1)]
    assert consumer.command("verify").stdout == "ledger, tables and folders add up\n"
    last = f"select * from open_rejects where message_offset = {count}"
    (found,) = json.decode(consumer.command("sql", last, "--json").stdout)
    assert (found["path"], found["partition"]) == ("$.vehicle_id", 0)
    found["original"]["vehicle_id"] = "mended"
    (consumer.folder / "rejects.json").write_bytes(json.encode([found]))
    assert consumer.command("replay", "rejected", "--edited", "rejects.json").returncode == 0
    assert ("mended", "driving") in fleet.statuses()
    assert consumer.command("verify").stdout == "ledger, tables and folders add up\n"


def test_it_goes_on_where_the_database_says_whatever_the_group_says(fleet: Fleet) -> None:
    """Cases D5 and D6: killed before Kafka's own commit, and the offsets of the group are gone, or wrong."""
    fleet.make()
    fleet.send(STATUS, reports(*range(100)))
    consumer = fleet.consumer()
    fleet.until_at(STATUS, 100)
    consumer.stop(signal.SIGKILL)
    wrong = ConsumerGroupTopicPartitions(fleet.group, [TopicPartition(fleet.topic(STATUS), 0, 3)])

    def set_offset() -> bool:
        """Done as soon as the member that was killed is forgotten."""
        (answer,) = fleet.broker.admin.alter_consumer_group_offsets([wrong]).values()
        return answer.exception(10) is None

    until(set_offset, 30)
    fleet.send(STATUS, reports(*range(100, 110)))
    fleet.consumer()
    fleet.until_at(STATUS, 110)
    assert fleet.counts() == (110, 110, 0, 0)


def test_transactions_of_producers_are_read_when_they_are_committed(fleet: Fleet) -> None:
    """Case D12: markers and aborted messages are passed over; an open transaction holds up the rest."""
    fleet.make(cleanup_policy="compact")
    topic = fleet.topic(STATUS)
    producer = fleet.broker.producer(transactional_id=topic)
    producer.init_transactions(30)
    for number, ends in ((1, producer.commit_transaction), (2, producer.abort_transaction)):
        producer.begin_transaction()
        put(producer, topic, reports(number)[0], 0, key=b"%d" % number)
        producer.flush(30)
        ends(30)
    consumer = fleet.consumer()
    fleet.until_at(STATUS, 4)  # two messages and two markers
    producer.begin_transaction()
    put(producer, topic, reports(3)[0], 0, key=b"3")
    producer.flush(30)
    other = fleet.broker.producer()
    put(other, topic, reports(4)[0], 0, key=b"4")
    other.flush(30)
    blocked = f" blocked by an open transaction partition={topic}/0 offset=4 waiting=2"
    until(lambda: blocked in consumer.log(), 30, fleet.logs())
    shown = consumer.command("status").stdout
    assert f"{topic}, 1 partition, 0 messages to load, 2 more behind an open transaction, moved " in shown
    assert f"  {topic}/0  at offset 4: blocked by an open transaction, 2 messages behind it\n" in shown
    assert f" describe-producers --topic {topic} --partition 0  # shows " in shown
    assert fleet.positions()[STATUS, 0] == 4
    producer.commit_transaction(30)
    fleet.until_at(STATUS, 7)
    assert [vehicle for vehicle, _ in fleet.statuses()] == ["v000001", "v000003", "v000004"]
