"""Shows how far topics are loaded: positions from the database, lags from Kafka if it is set and answers."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from psycopg2.extensions import connection as Connection

from config import Settings
from db.connection import translate_errors
from db.stream import Moved, moved_positions
from processing.counted import counted
from processing.errors import Misconfigured, SourceUnavailable


class TopicState(Struct, frozen=True):
    """The partitions of one topic together; without a lag, trouble says why there is none.

    held_up: messages behind a transaction of a producer that is open.
    """

    topic: str
    partitions: int
    moved_at: datetime
    lag: int | None = None
    held_up: int = 0
    trouble: str = ""

    def __str__(self) -> str:
        count = counted(self.partitions, "partition")
        lag = f"lag not known: {self.trouble}"
        if self.lag is not None:
            lag = f"{counted(self.lag, 'message')} to load"
        held_up = f", {self.held_up:,} blocked by an open transaction" if self.held_up else ""
        return f"{self.topic}, {count}, {lag}{held_up}, moved {self.moved_at:%Y-%m-%d %H:%M:%S} UTC"


def gather(settings: Settings, connection: Connection) -> list[TopicState]:
    """Returns the topics that were ever read, and are not gone."""
    with translate_errors(), connection.cursor() as cursor:
        found = moved_positions(cursor)
    topics: dict[str, list[Moved]] = {}
    for one in found:
        topics.setdefault(one.position.partition.topic, []).append(one)
    return [_state(settings, topic, positions) for topic, positions in topics.items()]


def _state(settings: Settings, topic: str, positions: Sequence[Moved]) -> TopicState:
    moved_at = max(one.moved_at for one in positions)
    try:
        lag, held_up = _measure(settings, positions)
    except (SourceUnavailable, Misconfigured, ModuleNotFoundError) as error:
        return TopicState(topic, len(positions), moved_at, trouble=str(error))
    return TopicState(topic, len(positions), moved_at, lag, held_up)


def _measure(settings: Settings, positions: Sequence[Moved]) -> tuple[int, int]:
    from sources.topic_logs import TopicLogs

    logs = TopicLogs(settings.kafka)
    lag = held_up = 0
    ends = logs.ends([one.position.partition for one in positions])
    for one in positions:
        end = ends[one.position.partition]
        lag += max(0, end.stable_offset - one.position.next_offset)
        held_up += end.end_offset - end.stable_offset
    return lag, held_up
