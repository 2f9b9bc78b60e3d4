"""The ends of topics: what is there, and how far readers of committed messages come."""

import time
from collections.abc import Callable, Collection, Mapping

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from processing.errors import DatabaseUnavailable
from sources.kafka_offsets import Place, log_ends, stable_ends

#: The longest wait for the ends of open transactions, in seconds, and for an answer of the brokers.
_SECONDS = 30.0
_ASK_SECONDS = 20.0

#: Answers for a topic that was just made, or whose partitions have no leader for a moment.
_NOT_YET = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}


def id_of(admin: AdminClient, topic: str) -> str:
    """Returns the id of a topic, another one if it was deleted and made again."""
    (answer,) = admin.describe_topics(TopicCollection([topic]), request_timeout=_ASK_SECONDS).values()
    return str(answer.result(_ASK_SECONDS).topic_id)


def committed_ends(
    admin: AdminClient, topics: Collection[str], beat: Callable[[], None] = lambda: None
) -> Mapping[Place, int]:
    """Returns where the first open transaction of each partition begins, or its end if none is open."""
    return _ask_when_there(stable_ends, admin, topics, beat)


def wait_until_decided(
    admin: AdminClient,
    topics: Collection[str],
    beat: Callable[[], None] = lambda: None,
    seconds: float = _SECONDS,
) -> None:
    """Waits until all transactions that have written into the topics by now are committed or aborted.

    Raises DatabaseUnavailable if one is not in time.
    """
    deadline = time.monotonic() + seconds
    ends = _ask_when_there(log_ends, admin, topics, beat)
    while True:
        stable = committed_ends(admin, topics, beat)
        behind = [partition for partition, end in ends.items() if stable.get(partition, 0) < end]
        if not behind:
            return
        if time.monotonic() >= deadline:
            topic, number = behind[0]
            offset = stable.get(behind[0], 0)
            raise DatabaseUnavailable(
                f"partition {number} of {topic} is blocked by an open transaction at offset {offset}; "
                'if that stays so, see "A transaction that never ends" in docs/kafka.md'
            )
        time.sleep(0.05)


def _ask_when_there(
    ask: Callable[[AdminClient, Collection[Place], float], Mapping[Place, int]],
    admin: AdminClient,
    topics: Collection[str],
    beat: Callable[[], None],
) -> Mapping[Place, int]:
    """Asks about all partitions; again while a topic that was just made is not known everywhere."""
    deadline = time.monotonic() + _SECONDS
    while True:
        beat()
        try:
            return ask(admin, _partitions(admin, topics), _ASK_SECONDS)
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def _partitions(admin: AdminClient, topics: Collection[str]) -> list[Place]:
    known = admin.list_topics(timeout=_ASK_SECONDS).topics
    for topic in topics:
        if topic not in known:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        if known[topic].error is not None:
            raise KafkaException(known[topic].error)
    return [(topic, number) for topic in topics for number in known[topic].partitions]
