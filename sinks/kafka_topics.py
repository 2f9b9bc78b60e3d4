"""The topics of a publisher: their names and settings, and the largest messages that they take."""

import time
from collections.abc import Collection, Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic
from msgspec import Struct

from processing.records import Kind
from sources.kafka_client import Complaints

#: The longest wait for an answer about topics, in seconds.
_SECONDS = 10.0

#: Bytes of a message in the topics that hold whole records with their reasons, or what stands beside arrays.
_LARGEST = 8 * 1024 * 1024

#: How long the ledger knows a file, and so the longest time between two deliveries of the same bytes.
_LEDGER_DAYS = 30
_DAY = 24 * 3600 * 1000

#: Partitions of a kind's topic: how many consumers can share it.
_PARTITIONS = 6

#: What a broker takes if nobody has said otherwise.
_USUAL_LARGEST = 1_048_588

_POLICY, _RETENTION, _MOST_BYTES = "cleanup.policy", "retention.ms", "max.message.bytes"

_LEDGER_SETTINGS = {
    _POLICY: "compact,delete",
    _RETENTION: str(_LEDGER_DAYS * _DAY),
    "segment.ms": str(_DAY),
    _MOST_BYTES: str(_LARGEST),
}


class Limits(Struct, frozen=True):
    """The settings of topics that a publisher heeds: the largest message of each, and the ledger's horizon.

    ledger_days is None if the ledger keeps its entries for ever.
    """

    largest: Mapping[str, int]
    ledger_days: float | None


class Topics:
    """The names of the topics with one prefix."""

    def __init__(self, prefix: str, kinds: Collection[Kind]) -> None:
        self.rejects = f"{prefix}.rejects"
        self.ledger = f"{prefix}.ledger"
        self._of_kind = {kind.name: f"{prefix}.{kind.key}" for kind in kinds}

    def of(self, kind: Kind) -> str:
        return self._of_kind[kind.name]

    @property
    def names(self) -> list[str]:
        return [*self._of_kind.values(), self.rejects, self.ledger]

    def prepare(self, admin: AdminClient, complaints: Complaints) -> Limits:
        """Makes the topics that are missing; returns the limits of all."""
        with complaints.translated(admin):
            there = admin.list_topics(timeout=_SECONDS).topics
            self._make(admin, [name for name in self.names if name not in there])
            return self._limits_when_there(admin)

    def _make(self, admin: AdminClient, missing: Collection[str]) -> None:
        wanted = [self._new(name) for name in missing]
        made = admin.create_topics(wanted, request_timeout=_SECONDS) if wanted else {}
        for name, future in made.items():
            try:
                future.result(_SECONDS)
            except KafkaException as error:
                found = error.args[0]
                if found.code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another publisher was as quick
                    why = f"there is no topic {name} that may be described, nor can it be made: {found.str()}"
                    raise KafkaException(KafkaError(found.code(), why)) from None

    def _new(self, name: str) -> NewTopic:
        if name == self.ledger:
            return NewTopic(name, 1, config=_LEDGER_SETTINGS)
        if name == self.rejects:
            return NewTopic(name, 1, config={_MOST_BYTES: str(_LARGEST)})
        return NewTopic(name, _PARTITIONS)

    def _limits_when_there(self, admin: AdminClient) -> Limits:
        """Asks again while a topic that was just made is not known everywhere."""
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                return self._limits(admin)
            except KafkaException as error:
                is_new = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
                if not is_new or time.monotonic() >= deadline:
                    raise
                time.sleep(0.1)

    def _limits(self, admin: AdminClient) -> Limits:
        asked = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in self.names])
        found = {resource.name: future.result(_SECONDS) for resource, future in asked.items()}
        largest = {
            name: int(settings[_MOST_BYTES].value) if settings else _USUAL_LARGEST
            for name, settings in found.items()
        }
        of_ledger = found[self.ledger]
        kept = int(of_ledger[_RETENTION].value) if of_ledger else -1
        deletes = of_ledger and "delete" in str(of_ledger[_POLICY].value)
        return Limits(largest, kept / _DAY if deletes and kept >= 0 else None)
