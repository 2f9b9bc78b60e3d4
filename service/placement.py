"""Finds out where the partitions of topics go on: where the database says, unless something is missing."""

from collections.abc import Collection, Sequence

from processing.errors import Misconfigured
from processing.stream import Fenced, Gap, Position, StreamSink, TopicPartition
from service.events import Publish
from service.gaps import describe, find_gap, gone_gap
from service.stream_events import GapAccepted
from sources.kafka_offsets import Place
from sources.topic_logs import TopicLogs

_ADVICE = "python main.py consume --accept-gap notes that and goes on"


class Placement:
    """Asks the database and the cluster; notes gaps if a person has accepted them."""

    def __init__(
        self, logs: TopicLogs, names: Sequence[str], publish: Publish, accepted_by: str | None
    ) -> None:
        """Refuses gaps unless somebody accepts them."""
        self._logs = logs
        self._names = names
        self._publish = publish
        self._accepted_by = accepted_by

    def place(self, sink: StreamSink, places: Collection[Place]) -> list[Position]:
        """Returns the positions of partitions; those that are new begin with their first message.

        Raises Misconfigured where messages are missing, SourceUnavailable and DatabaseUnavailable.
        """
        ids = self._logs.ids(self._names)
        known = sink.positions(self._names)
        gone = [at for at in known if ids.get(at.partition.topic) not in (None, at.partition.topic_id)]
        self._accept(sink, [gone_gap(at) for at in gone])
        wanted = [TopicPartition(topic, ids[topic], number) for topic, number in places if topic in ids]
        first, ends = self._logs.first_offsets(wanted), self._logs.ends(wanted)
        found = {at.partition: at.next_offset for at in known}
        sink.begin([Position(place, first[place]) for place in wanted if place not in found])
        last = {place: end.end_offset for place, end in ends.items()}
        missing = [
            gap
            for place, at in found.items()
            if place in first and (gap := find_gap(place, at, first[place], last[place]))
        ]
        self._accept(sink, missing)
        now = {at.partition: at.next_offset for at in sink.positions(self._names)}
        return [Position(place, now[place]) for place in wanted if place in now]

    def _accept(self, sink: StreamSink, gaps: Sequence[Gap]) -> None:
        if not gaps:
            return
        if self._accepted_by is None:
            raise Misconfigured(f"{describe(gaps[0])}{_and_others(gaps)}: {_ADVICE}")
        for gap in gaps:
            try:
                sink.accept(gap, self._accepted_by)
            except Fenced:
                continue  # another consumer was faster
            self._publish(GapAccepted(str(gap.partition), gap.first_offset, gap.resume_offset, gap.reason))


def _and_others(gaps: Sequence[Gap]) -> str:
    return f", and so {len(gaps) - 1} more partitions" if len(gaps) > 1 else ""
