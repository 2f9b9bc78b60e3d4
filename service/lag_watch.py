"""Looks every few seconds how far the logs of partitions reach, in a thread of its own."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from processing.errors import Misconfigured, SourceUnavailable
from processing.stream import TopicPartition
from service.events import Publish
from service.stream_events import LagMeasured, MessagesBlocked, PartitionLag
from sources.topic_logs import LogEnd, TopicLogs

_LOOK_SECONDS = 5.0


class LagWatch:
    """Publishes lags, and what an open transaction of a producer holds up; notices a topic made again."""

    def __init__(
        self,
        logs: TopicLogs,
        positions: Callable[[], Mapping[TopicPartition, int]],
        on_new_topic: Callable[[], None],
        publish: Publish,
        seconds: float = _LOOK_SECONDS,
    ) -> None:
        """Starts nothing yet."""
        self._logs = logs
        self._positions = positions
        self._on_new_topic = on_new_topic
        self._publish = publish
        self._seconds = seconds
        self._is_over = threading.Event()
        self._blocked: dict[TopicPartition, _Block] = {}
        self._thread = threading.Thread(target=self._run, name="lag", daemon=True)

    def __enter__(self) -> "LagWatch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()

    def _run(self) -> None:
        while not self._is_over.wait(self._seconds):
            with suppress(SourceUnavailable, Misconfigured):  # whoever reads will say so
                self.look()

    def look(self) -> None:
        """Looks once; raises SourceUnavailable or Misconfigured."""
        positions = self._positions()
        ids = self._logs.ids(sorted({place.topic for place in positions})) if positions else {}
        if any(ids.get(place.topic, place.topic_id) != place.topic_id for place in positions):
            self._on_new_topic()
            return
        ends = self._logs.ends(positions.keys())
        now = time.monotonic()
        found = [self._lag(place, positions[place], ends[place], now) for place in sorted(ends)]
        self._blocked = {place: block for place, block in self._blocked.items() if place in ends}
        self._publish(LagMeasured(found))

    def _lag(self, place: TopicPartition, position: int, end: LogEnd, now: float) -> PartitionLag:
        lag, waiting = max(0, end.stable_offset - position), end.end_offset - end.stable_offset
        if lag or not waiting:
            self._blocked.pop(place, None)
            return PartitionLag(place.topic, place.partition, position, lag)
        block = self._blocked.get(place)
        if block is None or block.offset != end.stable_offset:
            block = self._blocked[place] = _Block(end.stable_offset, now)
        elif not block.is_said:  # the same transaction as at the last look
            block.is_said = True
            self._publish(MessagesBlocked(str(place), end.stable_offset, waiting))
        return PartitionLag(place.topic, place.partition, position, 0, waiting, now - block.since)


class _Block:
    """An offset where the log was held up at the last look, too."""

    def __init__(self, offset: int, since: float) -> None:
        self.offset = offset
        self.since = since
        self.is_said = False
