"""Apache Kafka as a sink, with a broker of the tests' own."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from processing.errors import DatabaseUnavailable, Misconfigured
from processing.sink import Counts
from processing.vehicle_status import KIND
from sinks.kafka import KafkaSink
from sinks.kafka_ledger import Published
from sinks.kafka_producer import Publisher
from sources.kafka_client import Cluster
from tests.contracts.sink import Kit, LedgerRow, SinkContract, delivery
from tests.kafka import Broker, unique
from tests.topics import read_topic

#: The ledger's words for those of the contract.
_STATES = {"published": "loaded", "failed": "failed"}


def publisher(broker: Broker, prefix: str, installation: str = "here", **properties: str) -> Publisher:
    chosen = {name.replace("_", "."): value for name, value in properties.items()}
    return Publisher(Cluster({"bootstrap.servers": broker.servers, **chosen}), prefix, installation)


class KafkaKit(Kit):
    def __init__(self, broker: Broker, prefix: str, sink: KafkaSink) -> None:
        self.sink = sink
        self._broker = broker
        self._prefix = prefix

    def _read(self, topic: str) -> list[tuple[str, Any]]:
        found = read_topic(self._broker, f"{self._prefix}.{topic}")
        return [(message.key, message.value) for message in found]

    def statuses(self) -> dict[tuple[str, int], str]:
        values = [value for _, value in self._read("vehicle_status")]
        values.sort(key=lambda value: (value["vehicle_id"], value["report_time"]))
        return {(value["vehicle_id"], int(value["report_time"][14:16])): value["status"] for value in values}

    def _entries(self) -> list[tuple[dict[str, Any], int]]:
        """What stands last under each digest, and how often it came."""
        found = [(key, value) for key, value in self._read("ledger") if not key.startswith("publisher:")]
        again = Counter(key.partition(":")[0] for key, _ in found if ":" in key)
        entries = {key: value for key, value in found if ":" not in key}
        return [(value, value.get("deliveries", 1) + again[key]) for key, value in entries.items()]

    def ledger(self) -> list[LedgerRow]:
        return sorted(
            (
                entry["name"],
                _STATES[entry["state"]],
                deliveries,
                Counts(entry.get("read", 0), entry.get("published", 0), 0, entry.get("rejected", 0)),
            )
            for entry, deliveries in self._entries()
        )

    def extras(self) -> list[Any]:
        entries = sorted((entry for entry, _ in self._entries()), key=lambda entry: entry["name"])
        extras = [entry.get("extra") for entry in entries]
        found: list[Any] = json.loads(json.dumps(extras).replace('"1.50"', "1.5"))
        return found

    def rejects(self) -> list[tuple[str, str]]:
        return sorted((value["reason"], value["path"]) for _, value in self._read("rejects"))


class TestKafka(SinkContract):
    @pytest.fixture
    def kit(self, broker: Broker) -> Iterator[Kit]:
        prefix = unique("contract")
        with closing(KafkaSink(publisher(broker, prefix), max_future_hours=24)) as sink:
            yield KafkaKit(broker, prefix, sink)


def commit(sink: KafkaSink, name: str) -> None:
    with sink.transaction() as transaction:
        transaction.begin_file(delivery(name), KIND)
        transaction.commit()


def test_a_newer_publisher_is_seen_though_the_ledger_was_made_again(broker: Broker) -> None:
    prefix = unique("again")
    with closing(KafkaSink(publisher(broker, prefix))) as older:
        for number in range(5):
            commit(older, f"{number}.json")
        broker.delete_topic(f"{prefix}.ledger")
        with closing(KafkaSink(publisher(broker, prefix))) as newer:
            commit(newer, "a.json")
            with pytest.raises(DatabaseUnavailable, match="fenced"):
                commit(older, "b.json")
            with pytest.raises(Misconfigured, match="another publisher"):
                commit(older, "b.json")
            commit(newer, "c.json")


def test_a_ledger_may_get_more_partitions(broker: Broker) -> None:
    prefix = unique("more")
    names = [f"{number}.json" for number in range(20)]
    with closing(KafkaSink(publisher(broker, prefix))) as sink:
        for name in names[:10]:
            commit(sink, name)
    broker.add_partitions(f"{prefix}.ledger", 4)
    for _ in range(2):
        with closing(KafkaSink(publisher(broker, prefix))) as sink:
            for name in names[10:]:
                commit(sink, name)
    with closing(KafkaSink(publisher(broker, prefix))) as sink, sink.transaction() as transaction:
        assert len(transaction.loaded([delivery(name).sha256 or b"" for name in names])) == len(names)


def test_what_the_ledger_has_forgotten_takes_no_memory() -> None:
    published = Published()
    now = time.time()
    for days in (0, 10, 40):
        published.add(bytes([days]), now - days * 24 * 3600)
    digests = [bytes([days]) for days in (0, 10, 40, 50)]
    assert published.known(digests) == set(digests[:3])
    published.days_kept = 30
    assert published.known(digests) == set(digests[:2])
    published.days_kept = None
    assert published.known(digests) == set(digests[:2])
    published.discard(digests[0])
    assert published.known(digests) == {digests[1]}
