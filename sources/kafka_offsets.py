"""Asks brokers where the logs of partitions begin and end."""

from collections.abc import Collection

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

#: A partition as the client names it.
Place = tuple[str, int]


def first_offsets(admin: AdminClient, places: Collection[Place], seconds: float) -> dict[Place, int]:
    """Returns where logs begin; raises KafkaException, and TimeoutError after twice the seconds."""
    earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    return _offsets(admin, places, earliest, IsolationLevel.READ_UNCOMMITTED, seconds)


def stable_ends(admin: AdminClient, places: Collection[Place], seconds: float) -> dict[Place, int]:
    """Returns where the first open transaction of each begins, or else its end; raises as above."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    return _offsets(admin, places, latest, IsolationLevel.READ_COMMITTED, seconds)


def log_ends(admin: AdminClient, places: Collection[Place], seconds: float) -> dict[Place, int]:
    """Returns where logs end, whether what is there is committed or not; raises as above."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    return _offsets(admin, places, latest, IsolationLevel.READ_UNCOMMITTED, seconds)


def _offsets(
    admin: AdminClient, places: Collection[Place], wanted: OffsetSpec, level: IsolationLevel, seconds: float
) -> dict[Place, int]:
    if not places:
        return {}
    asked = {TopicPartition(*place): wanted for place in places}
    answers = admin.list_offsets(asked, isolation_level=level, request_timeout=seconds)
    return {
        (place.topic, place.partition): answer.result(2 * seconds).offset for place, answer in answers.items()
    }
