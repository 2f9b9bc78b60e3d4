"""Looks every few seconds how far the logs of partitions reach, in a thread of its own."""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from processing.errors import Misconfigured, SourceUnavailable
from processing.stream import TopicPartition
from service.events import Publish
from service.stream_events import LagMeasured, MessagesBlocked
from sources.topic_logs import TopicLogs

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
        self._blocked: dict[TopicPartition, int] = {}
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
        ids = self._logs.ids(sorted({place.topic for place in positions}))
        if any(ids.get(place.topic, place.topic_id) != place.topic_id for place in positions):
            self._on_new_topic()
            return
        ends = self._logs.ends(positions.keys())
        lags = {place: max(0, end.stable_offset - positions[place]) for place, end in ends.items()}
        self._publish(LagMeasured({str(place): lag for place, lag in sorted(lags.items())}))
        for place, end in ends.items():
            is_held_up = lags[place] == 0 and end.end_offset > end.stable_offset
            if not is_held_up:
                self._blocked.pop(place, None)
            elif place not in self._blocked:
                self._blocked[place] = end.stable_offset  # said if it is so the next time, too
            elif self._blocked[place] == end.stable_offset:
                waiting = end.end_offset - end.stable_offset
                self._publish(MessagesBlocked(str(place), end.stable_offset, waiting))
                self._blocked[place] = -1
