"""The ends of topics, with a broker of the tests' own."""

import pytest

from processing.errors import DatabaseUnavailable
from sinks.kafka_ends import committed_ends, wait_until_decided
from tests.kafka import Broker, unique


def test_what_is_open_is_waited_for_and_named(broker: Broker) -> None:
    topic = unique("ends")
    broker.make_topic(topic, 2)
    producer = broker.producer(transactional_id=unique("id"), transaction_timeout_ms=60_000)
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"{}", partition=1)
    assert producer.flush(30) == 0
    open_at = rf"partition 1 of {topic} is blocked by an open transaction at offset 0; .* docs/kafka.md"
    with pytest.raises(DatabaseUnavailable, match=open_at):
        wait_until_decided(broker.admin, [topic], seconds=0.2)
    assert committed_ends(broker.admin, [topic]) == {(topic, 0): 0, (topic, 1): 0}
    producer.commit_transaction(30)
    wait_until_decided(broker.admin, [topic], seconds=20)
    assert committed_ends(broker.admin, [topic]) == {(topic, 0): 0, (topic, 1): 2}


def test_what_is_begun_later_is_not_waited_for(broker: Broker) -> None:
    """Else publishers that are never idle would keep others from starting."""
    topic, later = unique("ends"), 0
    broker.make_topic(topic)
    producer = broker.producer(transactional_id=unique("id"))
    producer.init_transactions(30)

    def go_on() -> None:
        nonlocal later
        later += 1
        if later > 1:
            producer.commit_transaction(30)
        producer.begin_transaction()
        producer.produce(topic, b"{}")
        producer.flush(30)

    go_on()
    wait_until_decided(broker.admin, [topic], beat=go_on, seconds=20)
    producer.abort_transaction(30)
    assert later > 1
