"""Events of the consumer of topics, beside those of service/events.py that it shares with the daemon."""

from collections.abc import Mapping, Sequence

from processing.stream_loader import LoadedEntry
from service.events import Event


class ConsumerStarted(Event, frozen=True):
    """The consumer joins its group. Exactly one of embedded_in and outside_database is given."""

    servers: str
    group: str
    topics: Sequence[str]
    env_file: str | None
    embedded_in: str | None
    outside_database: str | None


class ConsumerStopped(Event, frozen=True):
    """The consumer has left its group; counts since its start."""

    messages: int
    rows: int
    rejected: int


class TopicMissing(Event, frozen=True):
    """A topic does not exist; it is read as soon as it does."""

    topic: str


class PartitionsRead(Event, frozen=True):
    """Partitions that the group has given to this consumer, each with the offset where it goes on."""

    partitions: Sequence[str]


class PartitionsGivenUp(Event, frozen=True):
    """Partitions go to other consumers; is_lost: others may have had them before this one knew."""

    partitions: Sequence[str]
    is_lost: bool


class MessagesLoaded(Event, frozen=True):
    """A batch of messages is committed, with its positions."""

    entries: Sequence[LoadedEntry]
    messages: int
    bytes: int
    seconds: float


class PositionsFenced(Event, frozen=True):
    """The database refused a batch, since another consumer has loaded these messages."""

    reason: str


class GapAccepted(Event, frozen=True):
    """Messages are missing, and a person has accepted that; resume_offset is None if their topic is gone."""

    partition: str
    first_offset: int
    resume_offset: int | None
    reason: str


class LagMeasured(Event, frozen=True):
    """The number of committed messages that each partition of this consumer still has to load."""

    lags: Mapping[str, int]


class MessagesBlocked(Event, frozen=True):
    """Messages behind this offset wait for a transaction of a producer that is open."""

    partition: str
    offset: int
    waiting: int
