"""Publishes how far the work has come, a few times a second at most and only if it has changed."""

import time
from collections.abc import Callable, Iterator, Sequence

from processing.batch import FileTask
from processing.source import MAX_SHARED_BYTES
from service.backlog import Backlog
from service.events import FileProgress, Publish, WorkChanged
from service.pool import Pool
from service.worker import Results

#: The least time between two reports while there is work.
PROGRESS_SECONDS = 0.5

#: Returns the size of a file, or None if there is no such file.
SizeOf = Callable[[str], int | None]


class ProgressReport:
    """The report of a daemon on its backlog and its workers."""

    def __init__(self, publish: Publish, size_of: SizeOf) -> None:
        self._publish = publish
        self._size_of = size_of
        self._last: WorkChanged | None = None
        self._next = 0.0

    def update(self, backlog: Backlog, pool: Pool, flights: Sequence[tuple[Results, list[FileTask]]]) -> None:
        """Publishes the state of the work: an end of all work at once, else not too soon after the last."""
        ready, waiting, in_flight = backlog.sizes()
        now = time.monotonic()
        if now < self._next and (ready or in_flight):
            return
        large = tuple(self._large(pool, flights))
        state = WorkChanged(ready, in_flight, waiting, pool.size, len(flights), large)
        if state != self._last:
            self._last, self._next = state, now + PROGRESS_SECONDS
            self._publish(state)

    def _large(self, pool: Pool, flights: Sequence[tuple[Results, list[FileTask]]]) -> Iterator[FileProgress]:
        for flight, batch in flights:
            if len(batch) == 1 and (size := self._size_of(batch[0].name) or 0) > MAX_SHARED_BYTES:
                yield FileProgress(batch[0].name, size, *pool.progress(flight))
