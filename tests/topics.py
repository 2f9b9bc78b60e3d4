"""What stands in the topics of a publisher, as others read it."""

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin._listoffsets import OffsetSpec

from tests.kafka import Broker


class Found(NamedTuple):
    """A message of a topic; the time is that of its record, in milliseconds since 1970."""

    key: str
    value: Any
    partition: int
    offset: int
    time: int
    headers: Any


#: How long a committed transaction may take to be visible: markers are written after the answer.
_MARKER_SECONDS = 3.0


def read_topic(broker: Broker, topic: str, *, is_committed: bool = True) -> list[Found]:
    """All messages, in the order of each partition; those of open and aborted transactions only if asked."""
    return list(each_message(broker, topic, is_committed=is_committed))


def each_message(broker: Broker, topic: str, *, is_committed: bool = True) -> Iterator[Found]:
    """The same, one by one."""
    ends = ends_of(broker, topic, IsolationLevel.READ_UNCOMMITTED)
    if is_committed:
        deadline = time.monotonic() + _MARKER_SECONDS
        while (stable := ends_of(broker, topic, IsolationLevel.READ_COMMITTED)) != ends:
            if time.monotonic() >= deadline:
                break  # a transaction is open
        ends = stable
    consumer = Consumer(
        {
            "bootstrap.servers": broker.servers,
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed" if is_committed else "read_uncommitted",
            "log_level": 0,
        }
    )
    try:
        yield from _read(consumer, topic, {number: end for number, end in ends.items() if end > 0})
    finally:
        consumer.close()


def sent(broker: Broker, topic: str) -> int:
    """How many messages there are, those of open and aborted transactions and markers counted, too."""
    return sum(ends_of(broker, topic, IsolationLevel.READ_UNCOMMITTED).values())


def is_blocked(broker: Broker, topic: str) -> bool:
    """Whether an open transaction hides messages."""
    stable, all_of_it = (
        ends_of(broker, topic, level)
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
    )
    return stable != all_of_it


def ends_of(broker: Broker, topic: str, level: IsolationLevel) -> dict[int, int]:
    """The offset behind the last message of each partition."""
    known = broker.admin.list_topics(topic, timeout=20).topics[topic]
    if known.error is not None:
        return {}
    latest = OffsetSpec.latest()
    asked = {TopicPartition(topic, number): latest for number in known.partitions}
    answers = broker.admin.list_offsets(asked, isolation_level=level)
    try:
        return {place.partition: answer.result(20).offset for place, answer in answers.items()}
    except KafkaException as error:
        if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
            raise
        return {}  # it is just being made


def _read(consumer: Consumer, topic: str, ends: dict[int, int]) -> Iterator[Found]:
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in ends])
    while ends:
        for message in consumer.consume(10_000, 0.1):
            number, offset = message.partition() or 0, message.offset() or 0
            error = message.error()
            if error is None:
                value = message.value()
                parsed = None if value is None else json.loads(value, parse_float=str)
                key = (message.key() or b"").decode()
                yield Found(key, parsed, number, offset, message.timestamp()[1], message.headers())
                offset += 1
            elif error.code() != KafkaError._PARTITION_EOF:
                raise AssertionError(error)
            if offset >= ends.get(number, offset + 1):
                del ends[number]
