"""The progress in topics: positions by the database, and what is left by Kafka, if that answers."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from config import Settings
from db.stream import AcceptedGap, Moved, Stored
from processing.errors import Misconfigured, SourceUnavailable
from service.gaps import describe, find_gap, gone_gap

if TYPE_CHECKING:
    from sources.topic_logs import Member, TopicLogs


class PartitionState(Struct, frozen=True):
    """One partition; lag is None as long as Kafka can't be asked.

    open: messages behind a transaction of a producer that is open; missing: why no consumer goes on here.
    """

    topic: str
    partition: int
    next_offset: int
    moved_at: datetime
    lag: int | None = None
    open: int = 0
    missing: str = ""

    @property
    def is_blocked(self) -> bool:
        """Returns whether nothing can be loaded before a producer ends its transaction."""
        return self.lag == 0 and self.open > 0

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class TopicState(Struct, frozen=True):
    """The topics that were ever read, and are not gone.

    consumers: the members of the group; None if Kafka can't be asked, for the reason in trouble.
    """

    partitions: Sequence[PartitionState]
    gaps: Sequence[AcceptedGap]
    group: str
    consumers: "Sequence[Member] | None" = None
    trouble: str = ""


class TopicLooker:
    """Asks Kafka about topics, with one client for all looks."""

    def __init__(self, settings: Settings) -> None:
        """Connects to nothing."""
        self._settings = settings
        self._logs: TopicLogs | None = None

    def look(self, stored: Stored) -> TopicState | None:
        """Returns how far topics are loaded; None if none was ever read."""
        if not stored.positions and not stored.gaps:
            return None
        group = self._settings.kafka_group
        try:
            if self._logs is None:
                self._logs = _open_logs(self._settings)
            return TopicState(
                _partitions(self._logs, stored.positions), stored.gaps, group, self._logs.members(group)
            )
        except (SourceUnavailable, Misconfigured, ModuleNotFoundError) as error:
            known = [_state(one) for one in stored.positions]
            return TopicState(known, stored.gaps, group, trouble=str(error))


def _open_logs(settings: Settings) -> "TopicLogs":
    from sources.kafka_client import Cluster
    from sources.topic_logs import TopicLogs

    return TopicLogs(Cluster(settings.kafka))


def _partitions(logs: "TopicLogs", positions: Sequence[Moved]) -> list[PartitionState]:
    ids = logs.ids(sorted({one.position.partition.topic for one in positions})) if positions else {}
    there = [place for one in positions if ids.get((place := one.position.partition).topic) == place.topic_id]
    first, ends = logs.first_offsets(there), logs.ends(there)
    found = []
    for one in positions:
        place, at = one.position.partition, one.position.next_offset
        if place in ends:
            gap = find_gap(place, at, first[place], ends[place].end_offset)
            stable, end = ends[place].stable_offset, ends[place].end_offset
            lag = max(0, stable - max(at, first[place]))
            found.append(_state(one, lag, end - stable, describe(gap) if gap else ""))
        elif place.topic in ids:
            found.append(_state(one, missing=describe(gone_gap(one.position))))
        else:
            found.append(_state(one, missing=f"the topic {place.topic} does not exist"))
    return found


def _state(one: Moved, lag: int | None = None, opened: int = 0, missing: str = "") -> PartitionState:
    place = one.position.partition
    return PartitionState(
        place.topic, place.partition, one.position.next_offset, one.moved_at, lag, opened, missing
    )
