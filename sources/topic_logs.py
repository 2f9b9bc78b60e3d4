"""Asks a Kafka cluster about topics: their ids, their partitions, and how far their logs reach."""

from collections.abc import Collection, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from msgspec import Struct

from processing.errors import SourceUnavailable
from processing.stream import TopicPartition
from sources.kafka_client import Cluster
from sources.kafka_offsets import Place, first_offsets, log_ends, stable_ends

_SECONDS = 5.0


class LogEnd(Struct, frozen=True):
    """The end of a partition's log: stable_offset is where an open transaction begins, if there is one."""

    stable_offset: int
    end_offset: int


class Member(Struct, frozen=True):
    """A consumer of a group: its machine as the broker sees it, and the number of its partitions."""

    host: str
    partitions: int


class TopicLogs:
    """A client for questions, which may come from any thread."""

    def __init__(self, cluster: Cluster) -> None:
        """Connects when it is asked first; raises Misconfigured for properties that nobody knows."""
        self._complaints = cluster.complaints(SourceUnavailable)
        self._admin = cluster.admin(self._complaints.take)

    def ids(self, topics: Sequence[str]) -> dict[str, str]:
        """Returns the ids of those topics that exist; raises SourceUnavailable or Misconfigured."""
        found = {}
        with self._complaints.translated(self._admin):
            asked = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=_SECONDS)
            for name, answer in asked.items():
                try:
                    found[name] = str(answer.result(2 * _SECONDS).topic_id)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                        raise
        return found

    def first_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Returns where logs begin; raises SourceUnavailable or Misconfigured."""
        with self._complaints.translated(self._admin):
            found = first_offsets(self._admin, _places(partitions), _SECONDS)
        return {one: found[one.topic, one.partition] for one in partitions}

    def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, LogEnd]:
        """Returns how far logs reach; raises SourceUnavailable or Misconfigured."""
        places = _places(partitions)
        with self._complaints.translated(self._admin):
            stable = stable_ends(self._admin, places, _SECONDS)
            end = log_ends(self._admin, places, _SECONDS)
        found = {place: LogEnd(stable[place], end[place]) for place in places}
        return {one: found[one.topic, one.partition] for one in partitions}

    def members(self, group: str) -> list[Member]:
        """Returns the consumers of a group; raises SourceUnavailable or Misconfigured."""
        with self._complaints.translated(self._admin):
            asked = self._admin.describe_consumer_groups([group], request_timeout=_SECONDS)
            try:
                found = asked[group].result(2 * _SECONDS)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                    return []
                raise
        return [Member(one.host.lstrip("/"), len(one.assignment.topic_partitions)) for one in found.members]


def _places(partitions: Collection[TopicPartition]) -> list[Place]:
    return [(one.topic, one.partition) for one in partitions]
