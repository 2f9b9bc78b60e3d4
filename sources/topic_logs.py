"""Asks a Kafka cluster about topics: their ids, their partitions, and how far their logs reach."""

from collections.abc import Collection, Mapping, Sequence

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from msgspec import Struct

from processing.stream import TopicPartition
from sources.topic import client_settings, open_client, unavailable

_SECONDS = 5.0


class LogEnd(Struct, frozen=True):
    """The end of a partition's log: stable_offset is where an open transaction begins, if there is one."""

    stable_offset: int
    end_offset: int


class TopicLogs:
    """A client for questions, which may come from any thread."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        """Connects when it is asked first."""
        self._settings = client_settings(properties)
        self._admin: AdminClient | None = None

    def open(self) -> None:
        """Makes the client, which connects later; raises Misconfigured for unknown properties."""
        self._client()

    def ids(self, topics: Sequence[str]) -> dict[str, str]:
        """Returns the ids of those topics that exist; raises SourceUnavailable or Misconfigured."""
        found = {}
        asked = self._client().describe_topics(TopicCollection(list(topics)), request_timeout=_SECONDS)
        for name, answer in asked.items():
            try:
                found[name] = str(answer.result(2 * _SECONDS).topic_id)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise unavailable(error) from None
        return found

    def first_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Returns where logs begin; raises SourceUnavailable or Misconfigured."""
        earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
        return self._offsets(partitions, earliest, IsolationLevel.READ_UNCOMMITTED)

    def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, LogEnd]:
        """Returns how far logs reach; raises SourceUnavailable or Misconfigured."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        stable = self._offsets(partitions, latest, IsolationLevel.READ_COMMITTED)
        end = self._offsets(partitions, latest, IsolationLevel.READ_UNCOMMITTED)
        return {place: LogEnd(stable[place], end[place]) for place in partitions}

    def _offsets(
        self, partitions: Collection[TopicPartition], wanted: OffsetSpec, level: IsolationLevel
    ) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        asked = {KafkaPartition(place.topic, place.partition): wanted for place in partitions}
        answers = self._client().list_offsets(asked, isolation_level=level, request_timeout=_SECONDS)
        known = {(place.topic, place.partition): place for place in partitions}
        try:
            return {
                known[place.topic, place.partition]: answer.result(2 * _SECONDS).offset
                for place, answer in answers.items()
            }
        except KafkaException as error:
            raise unavailable(error) from None

    def _client(self) -> AdminClient:
        if self._admin is None:
            self._admin = open_client(AdminClient, self._settings)
        return self._admin
