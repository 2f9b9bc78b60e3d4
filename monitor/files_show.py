"""The lines and the panel that a terminal shows of a daemon: files, and the state of what is loaded."""

import time
from collections.abc import Iterator, Sequence

from rich.console import RenderableType

from config import LogLevel
from monitor.event_log import Line, current_directory
from monitor.line_feed import LineFeed, summary
from monitor.panel import panel
from monitor.tally import Tally, View, wording_of
from service.events import Event, Resource, Stopped


class FilesShow:
    """The files that come to their end, and those that are on their way."""

    def __init__(self, level: LogLevel, destination: Resource = Resource.DATABASE) -> None:
        """Shows lines of this level and above."""
        self._wording = wording_of(destination)
        self._feed = LineFeed(level, self._wording)
        self._tally = Tally(time.time(), current_directory(), destination)

    def take(self, event: Event, at: float) -> None:
        self._tally.take(event, at)

    def lines(self, taken: Sequence[tuple[float, Event | Line]], now: float) -> Iterator[RenderableType]:
        stopped = [event for _, event in taken if isinstance(event, Stopped)]
        yield from self._feed.lines([item for item in taken if item[1] not in stopped], now)
        for event in stopped:
            yield from self._feed.rest(now)
            view = self._tally.view(now)
            yield from summary(event, view.seconds, view.folder, self._wording)

    def rest(self, now: float) -> Sequence[RenderableType]:
        return self._feed.rest(now)

    def view(self, now: float) -> View:
        return self._tally.view(now)

    def panel(self, view: View, width: int) -> RenderableType:
        return panel(view, width)
