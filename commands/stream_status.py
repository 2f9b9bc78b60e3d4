"""Shows how far topics are loaded: positions from the database, lags from Kafka if it is set and answers."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct
from psycopg2.extensions import connection as Connection

from config import Settings
from db.connection import translate_errors
from db.stream import Moved, moved_positions
from processing.counted import counted
from processing.errors import Misconfigured, SourceUnavailable

if TYPE_CHECKING:
    from sources.topic_logs import TopicLogs


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
    if not topics:
        return []
    try:
        logs, trouble = _open_logs(settings), ""
    except (Misconfigured, ModuleNotFoundError) as error:
        logs, trouble = None, str(error)
    return [_state(logs, topic, positions, trouble) for topic, positions in topics.items()]


def _open_logs(settings: Settings) -> "TopicLogs":
    from sources.kafka_client import Cluster
    from sources.topic_logs import TopicLogs

    return TopicLogs(Cluster(settings.kafka))


def _state(logs: "TopicLogs | None", topic: str, positions: Sequence[Moved], trouble: str) -> TopicState:
    lag, held_up = None, 0
    if logs is not None:
        try:
            lag, held_up = _measure(logs, positions)
        except (SourceUnavailable, Misconfigured) as error:
            trouble = str(error)
    return TopicState(topic, len(positions), max(one.moved_at for one in positions), lag, held_up, trouble)


def _measure(logs: "TopicLogs", positions: Sequence[Moved]) -> tuple[int, int]:
    lag = held_up = 0
    ends = logs.ends([one.position.partition for one in positions])
    for one in positions:
        end = ends[one.position.partition]
        lag += max(0, end.stable_offset - one.position.next_offset)
        held_up += end.end_offset - end.stable_offset
    return lag, held_up
