"""Events of the consumer of topics, beside those of service/events.py that it shares with the daemon."""

from collections.abc import Sequence

from msgspec import Struct

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


class ReadingPaused(Event, frozen=True):
    """The partitions are paused: the database has not answered for so many seconds."""

    seconds: float


class ReadingResumed(Event, frozen=True):
    """The partitions are read again, after so many seconds of that transaction."""

    seconds: float


class GapAccepted(Event, frozen=True):
    """Messages are missing, and a person has accepted that; resume_offset is None if their topic is gone."""

    partition: str
    first_offset: int
    resume_offset: int | None
    reason: str


class PartitionLag(Struct, frozen=True):
    """One partition at one look: where it goes on, and the committed messages that are still to be loaded.

    blocked: messages behind a transaction of a producer that is open, if all before them is loaded;
    blocked_seconds: for how long it has been the same transaction.
    """

    topic: str
    partition: int
    next_offset: int
    lag: int
    blocked: int = 0
    blocked_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class LagMeasured(Event, frozen=True):
    """A look at the logs of all partitions of this consumer."""

    partitions: Sequence[PartitionLag]


class MessagesBlocked(Event, frozen=True):
    """Messages behind this offset wait for a transaction of a producer that is open."""

    partition: str
    offset: int
    waiting: int
