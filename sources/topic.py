"""Partitions of Kafka topics, which a group divides among its consumers; each is read from a given offset.

The group decides only who reads a partition. Where it goes on stands in the database.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
)
from confluent_kafka import (
    TopicPartition as KafkaPartition,
)
from msgspec import Struct

from processing.errors import Misconfigured, SourceUnavailable
from processing.stream import Message, Position, TopicPartition
from sources.kafka_client import Cluster, is_to_fix
from sources.kafka_offsets import Place

#: What the promises rest on, which nobody may set.
_OURS = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "enable.partition.eof": "true",
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
}

#: What anybody may set: KAFKA_SESSION_TIMEOUT_MS is session.timeout.ms.
_DEFAULTS = {
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": "10000",
    "queued.max.messages.kbytes": "16384",
    "fetch.max.bytes": "8388608",
    "fetch.queue.backoff.ms": "10",
    "topic.metadata.refresh.interval.ms": "10000",
    # A tenth of it passes before a coordinator that is away is asked for again: by default a minute.
    "coordinator.query.interval.ms": "20000",
}

#: What the broker decides in the newer protocol of groups (KIP-848): the client refuses to be told.
_OF_THE_BROKER = {"partition.assignment.strategy", "session.timeout.ms"}


class GivenUp(Protocol):
    """Takes partitions that go to others; if they are lost, others may have them already."""

    def __call__(self, places: Collection[Place], *, is_lost: bool) -> None: ...


def _nobody(places: Collection[Place], *, is_lost: bool) -> None: ...


class Polled(Struct, frozen=True):
    """The messages that came, each list of one partition, and what was said of partitions.

    ends: the offset behind the last message of a partition that has been read to its end; beyond: partitions
    that do not have the offset that was asked for; missing: topics that do not exist.
    """

    runs: list[list[Message]]
    ends: list[Position]
    beyond: set[TopicPartition]
    missing: set[str]


class Assigned(Struct):
    """The partitions that the group has given to this consumer, and those of them that are read."""

    places: set[Place]
    reading: dict[Place, TopicPartition]


class Subscription:
    """A subscription to topics, as a member of a group. All methods are for one thread."""

    def __init__(self, cluster: Cluster, group: str, names: Sequence[str]) -> None:
        """Connects to nothing yet; raises Misconfigured for properties that are not free to choose."""
        for name in (*_OURS, "group.id"):
            if name in cluster.properties:
                chosen = f"KAFKA_{name.replace('.', '_').upper()}"
                raise Misconfigured(f"{chosen} can't be set: consume needs its own")
        self._cluster = cluster
        self._complaints = cluster.complaints(SourceUnavailable)
        is_new = cluster.properties.get("group.protocol") == "consumer"
        usual = {name: value for name, value in _DEFAULTS.items() if not (is_new and name in _OF_THE_BROKER)}
        self._settings = {**usual, **cluster.properties, **_OURS, "group.id": group}
        self._names = names
        self._is_cooperative = (
            is_new or self._settings["partition.assignment.strategy"] == "cooperative-sticky"
        )
        self._assigned = Assigned(set(), {})
        self._next: dict[Place, int] = {}
        self._consumer: Consumer | None = None
        self.trouble = ""
        #: Is told which partitions are about to go to others, or have gone already.
        self.given_up: GivenUp = _nobody

    def open(self) -> None:
        """Joins the group; raises Misconfigured for properties that the client does not know."""
        self._consumer = self._cluster.consumer(self._settings, self._note_error)
        self._consumer.subscribe(
            list(self._names), on_assign=self._take, on_revoke=self._give_up, on_lost=self._lose
        )

    @property
    def unplaced(self) -> set[Place]:
        """The partitions that are ours, and are not read yet."""
        return self._assigned.places - self._assigned.reading.keys()

    @property
    def reading(self) -> Collection[TopicPartition]:
        """The partitions that are read."""
        return self._assigned.reading.values()

    def read(self, positions: Iterable[Position]) -> None:
        """Reads partitions from these offsets on, as far as they are ours still."""
        added = []
        for position in positions:
            place = (position.partition.topic, position.partition.partition)
            if place in self._assigned.places:
                self._assigned.reading[place] = position.partition
                self._next[place] = position.next_offset
                added.append(KafkaPartition(*place, position.next_offset))
        if added:
            self._change(added, [])

    def stop_reading(self) -> None:
        """Reads nothing, and stays a member of the group; what was fetched ahead is dropped."""
        removed = list(self._assigned.reading)
        self._assigned.reading.clear()
        if removed:
            self._change([], [KafkaPartition(*place) for place in removed])

    def poll(self, most: int, seconds: float) -> Polled:
        """Waits for a first message for so long, and takes those that are there; serves the group, too."""
        consumer = self._open_consumer
        polled = Polled([], [], set(), set())
        first = consumer.poll(seconds)
        if first is not None:
            reading, runs = self._assigned.reading, dict[Place, list[Message]]()
            message: Any  # by their types its methods may return None: not of what a broker sent
            for message in (first, *consumer.consume(most - 1, 0)):
                place = message.topic(), message.partition()
                if message.error() is not None:
                    self._sort(message, polled)
                elif (partition := reading.get(place)) is not None:
                    found = Message(partition, message.offset(), message.value())
                    runs.setdefault(place, []).append(found)
            for place, run in runs.items():
                self._next[place] = max(self._next[place], run[-1].offset + 1)
            polled.runs.extend(runs.values())
        return polled

    def pause(self, *, is_on: bool) -> None:
        """Pauses all partitions, or goes on with them."""
        places = [KafkaPartition(*place) for place in self._assigned.reading]
        (self._open_consumer.pause if is_on else self._open_consumer.resume)(places)

    def hint(self, positions: Iterable[Position]) -> None:
        """Gives the broker the positions, for tools that show lags; nothing depends on it."""
        offsets = [
            KafkaPartition(at.partition.topic, at.partition.partition, at.next_offset) for at in positions
        ]
        if offsets:
            with suppress(KafkaException):
                self._open_consumer.commit(offsets=offsets, asynchronous=True)

    def close(self) -> None:
        """Leaves the group, so that others take over at once."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    @property
    def _open_consumer(self) -> Consumer:
        assert self._consumer is not None
        return self._consumer

    def _take(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        """Takes partitions and reads none of them: where to begin is for the database to say."""
        places = {(partition.topic, partition.partition) for partition in partitions}
        if not self._is_cooperative:
            self._assigned = Assigned(set(), {})
        self._assigned.places |= places
        (consumer.incremental_assign if self._is_cooperative else consumer.assign)([])

    def _lose(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        self._give_up(consumer, partitions, is_lost=True)

    def _give_up(
        self, consumer: Consumer, partitions: list[KafkaPartition], *, is_lost: bool = False
    ) -> None:
        places = {(partition.topic, partition.partition) for partition in partitions}
        self.given_up(places, is_lost=is_lost)
        read = [KafkaPartition(*place) for place in places if self._assigned.reading.pop(place, None)]
        self._assigned.places -= places
        if self._is_cooperative:
            there = {(known.topic, known.partition) for known in consumer.assignment()}
            consumer.incremental_unassign(
                [known for known in read if (known.topic, known.partition) in there]
            )
        else:
            consumer.unassign()

    def _change(self, added: list[KafkaPartition], removed: list[KafkaPartition]) -> None:
        consumer = self._open_consumer
        if self._is_cooperative:
            if removed:
                consumer.incremental_unassign(removed)
            if added:
                consumer.incremental_assign(added)
            return
        # The eager protocol knows only all of it at once.
        consumer.assign([KafkaPartition(*place, self._next[place]) for place in self._assigned.reading])

    def _sort(self, message: Any, polled: Polled) -> None:
        error, place = message.error(), (message.topic(), message.partition())
        partition = self._assigned.reading.get(place)
        if error.code() == KafkaError._PARTITION_EOF:
            if partition is not None:
                polled.ends.append(Position(partition, message.offset()))
                self._next[place] = message.offset()
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            if partition is not None:
                polled.beyond.add(partition)
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            polled.missing.add(message.topic() or "")
        else:
            self._note_error(error)

    def _note_error(self, error: KafkaError) -> None:
        if error.fatal():
            raise SourceUnavailable(f"the Kafka client gave up: {error.str()}")
        self._complaints.take(error)
        if is_to_fix(error):
            raise self._complaints.explain(error)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.trouble = str(self._complaints.explain(error))
