"""Writes the events of the consumer of topics as log lines; docs/kafka.md lists them with their fields."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import asdict

from monitor.event_log import EventLog, Level, Line, database_line, lines
from monitor.log import Log
from processing.printable import printable
from service import stream_events as events
from service.events import Event

#: Level and name of the line of each event that has one.
LINES: dict[type[Event], tuple[Level, str]] = {
    events.ConsumerStarted: ("info", "consuming"),
    events.ConsumerStopped: ("info", "stopped consuming"),
    events.TopicMissing: ("warning", "the topic is missing"),
    events.PartitionsRead: ("info", "reading partitions"),
    events.PartitionsGivenUp: ("info", "partitions given up"),
    events.MessagesLoaded: ("warning", "messages rejected"),
    events.ReadingPaused: ("warning", "partitions paused"),
    events.ReadingResumed: ("info", "partitions resumed"),
    events.PositionsFenced: ("warning", "another consumer was faster"),
    events.GapAccepted: ("warning", "gap accepted"),
    events.LagMeasured: ("info", "consumed"),
    events.MessagesBlocked: ("warning", "blocked by an open transaction"),
}

#: Seconds between two lines that sum up what was loaded.
_SUM_SECONDS = 10.0


class StreamLog(EventLog):
    """The subscriber that writes the lines of a consumer."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(log)
        self._lines = StreamLines(clock)

    def write(self, event: Event) -> None:
        for line in self._lines.of(event):
            self.write_line(line)


class StreamLines:
    """The lines of events: one for each, but one in ten seconds for what was loaded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._summed_at = clock()
        self._sums: Counter[str] = Counter()

    def of(self, event: Event) -> Iterator[Line]:
        """Returns the lines of an event, which may be none."""
        if type(event) not in LINES:
            yield from lines(event)
            return
        if isinstance(event, events.MessagesLoaded):
            self._add(event)
        yield from self._of_stream(event)

    def _of_stream(self, event: Event) -> Iterator[Line]:
        level, name = LINES[type(event)]
        match event:
            case events.ConsumerStarted():
                fields = {"servers": event.servers, "group": event.group, "topics": ", ".join(event.topics)}
                yield level, name, fields | {"env_file": printable(event.env_file or "none")}
                yield database_line(event.embedded_in, event.outside_database)
            case events.MessagesLoaded():
                yield from ((level, name, fields) for fields in _rejected(event))
            case events.LagMeasured(partitions):
                if self._sums["messages"] and self._clock() - self._summed_at >= _SUM_SECONDS:
                    self._summed_at = self._clock()
                    sums, self._sums = dict(self._sums), Counter()
                    lag = sum(partition.lag for partition in partitions)
                    yield level, name, sums | {"partitions": len(partitions), "lag": lag}
            case events.PartitionsRead(names) | events.PartitionsGivenUp(names):
                more = {"is_lost": event.is_lost} if isinstance(event, events.PartitionsGivenUp) else {}
                if names:
                    yield level, name, {"partitions": ", ".join(names)} | more
            case events.ReadingPaused():
                yield level, name, {"reason": "the database takes long; the consumer stays in its group"}
            case _:
                yield level, name, asdict(event)

    def _add(self, event: events.MessagesLoaded) -> None:
        self._sums["messages"] += event.messages
        for entry in event.entries:
            counts = entry.counts
            self._sums.update(rows=counts.read, inserted=counts.inserted)  # += would drop what is 0
            self._sums.update(duplicate=counts.duplicate, rejected=counts.rejected)


def _rejected(event: events.MessagesLoaded) -> Iterator[dict[str, Any]]:
    for entry in event.entries:
        if entry.counts.rejected and entry.first_reject is not None:
            yield {
                "entry": printable(entry.name),
                "kind": entry.kind,
                "rejected": entry.counts.rejected,
                "first_reason": entry.first_reject.reason,
                "first_path": printable(entry.first_reject.path)[:200],
            }
