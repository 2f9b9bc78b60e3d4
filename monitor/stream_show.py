"""The lines and the panel that a terminal shows of a consumer: its partitions, and what is loaded."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.text import Text

from config import LogLevel
from monitor.event_log import Line, current_directory
from monitor.line_feed import is_shown, text, words
from monitor.panel import ATTENTION, TROUBLE, count, head, row
from monitor.stream_log import StreamLines
from monitor.tally import NAMES, Rate, database_place
from processing.counted import counted
from service import events, stream_events
from service.events import Event

#: Topics that have a line of their own.
_TOPICS = 4


class TopicLag(Struct, frozen=True):
    """The partitions of a topic that this consumer reads, together."""

    topic: str
    partitions: int
    lag: int
    blocked: int


class StreamView(Struct, frozen=True):
    """The state that is shown at one moment; without a place it is starting."""

    place: str
    seconds: int
    messages_per_second: float
    rows_per_second: float
    totals: Mapping[str, int]
    topics: Sequence[TopicLag]
    is_paused: bool
    troubles: Mapping[str, str]


class StreamShow:
    """The messages that are loaded, and how many are still to be loaded."""

    def __init__(self, level: LogLevel) -> None:
        """Shows lines of this level and above."""
        self._level = level
        self._lines = StreamLines()
        self._began = time.time()
        self._place = ""
        self._totals: Counter[str] = Counter()
        self._messages, self._rows = Rate(), Rate()
        self._topics: list[TopicLag] = []
        self._is_paused = False
        self._troubles: dict[str, str] = {}

    def take(self, event: Event, at: float) -> None:
        match event:
            case stream_events.ConsumerStarted():
                rows_go = database_place(event.embedded_in, event.outside_database, current_directory())
                self._place = f"{', '.join(event.topics)} → {rows_go}"
            case stream_events.MessagesLoaded():
                self._add(event, at)
            case stream_events.LagMeasured(partitions):
                names = dict.fromkeys(one.topic for one in partitions)
                own = {name: [one for one in partitions if one.topic == name] for name in names}
                self._topics = [
                    TopicLag(
                        name, len(found), sum(one.lag for one in found), sum(one.blocked for one in found)
                    )
                    for name, found in own.items()
                ]
            case stream_events.ReadingPaused() | stream_events.ReadingResumed():
                self._is_paused = isinstance(event, stream_events.ReadingPaused)
            case events.OutageBegan(resource, reason) | events.OutageReasonChanged(resource, reason):
                self._troubles[NAMES[resource]] = reason
            case events.OutageEnded(resource):
                self._troubles.pop(NAMES[resource], None)

    def _add(self, event: stream_events.MessagesLoaded, at: float) -> None:
        self._totals["message"] += event.messages
        self._messages.count(at, event.messages)
        for entry in event.entries:
            counts = entry.counts
            self._rows.count(at, counts.inserted)
            self._totals.update(row=counts.inserted, duplicate=counts.duplicate, reject=counts.rejected)

    def lines(self, taken: Sequence[tuple[float, Event | Line]], now: float) -> Iterator[Text]:
        for at, event in taken:
            for level, name, fields in [event] if isinstance(event, tuple) else self._lines.of(event):
                if is_shown(level, self._level):
                    yield text(at, level, words(name, fields, event))

    def rest(self, now: float) -> Sequence[RenderableType]:
        return []

    def view(self, now: float) -> StreamView:
        return StreamView(
            self._place,
            int(now - self._began),
            round(self._messages.at(now), 1),
            round(self._rows.at(now), 1),
            dict(self._totals),
            tuple(self._topics),
            self._is_paused,
            dict(self._troubles),
        )

    def panel(self, view: StreamView, width: int) -> RenderableType:
        rates = [count(view.messages_per_second, "message/s"), count(view.rows_per_second, "row/s")]
        totals = [count(view.totals.get(name, 0), name, style) for name, style in _TOTALS.items()]
        lags = [_lag(topic) for topic in view.topics[:_TOPICS]]
        shown = lags or [[Text("no partition is read", "dim")]]
        return Group(
            head(view.place or "starting", view.seconds, width),
            *row("state", _states(view), width),
            *row("total", totals, width),
            *row("now", rates, width),
            *(line for number, lag in enumerate(shown) for line in row("" if number else "lag", lag, width)),
        )


#: What is counted, with the style of a number that is not 0.
_TOTALS = {"message": "", "row": "", "duplicate": "", "reject": ATTENTION}


def _lag(topic: TopicLag) -> list[Text]:
    held_up = [Text(f"{topic.blocked:,} blocked by an open transaction", TROUBLE)] if topic.blocked else []
    of_topic = Text(f"{topic.topic}, {counted(topic.partitions, 'partition')}")
    return [count(topic.lag, "message", ATTENTION), of_topic, *held_up]


def _states(view: StreamView) -> list[Text]:
    if not view.place and not view.troubles:
        return [Text("starting", "dim")]
    states = [
        Text(f"{name}: {view.troubles[name]}", TROUBLE) if name in view.troubles else Text(f"{name} ok")
        for name in ("database", "Kafka")
    ]
    paused = [Text("paused: the database takes long", ATTENTION)] if view.is_paused else []
    return [*states, *paused]
