"""The heartbeat of a worker, in memory shared with the daemon: it distinguishes work, waiting and a hang."""

import time
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from threading import Lock

from processing.errors import BatchLost, TransactionFailed, WorkerHung

#: The longest that a step forward may take, such as reading 64 KB of a file and parsing them.
HANG_SECONDS = 60.0

#: The longest that an answer of the database may take: twice the lock_timeout of our connections.
#: It is for a server that is frozen; a link that is dead and a lock are noticed earlier, by themselves.
DATABASE_SECONDS = 120.0

#: How often the daemon feels the pulse.
CHECK_SECONDS = 1.0

#: What a worker shares: whether it has taken the batch, a count of its steps, how many of its threads wait,
#: and how many bytes and records of a large file it has read.
COUNTERS = 5
_TAKEN, _STEPS, _WAITING, _BYTES, _RECORDS = range(COUNTERS)

SharedCounters = MutableSequence[int]


class Heartbeat:
    """Counts progress steps and marks the time spent waiting for the database."""

    def __init__(self, counters: SharedCounters | None = None) -> None:
        self._counters = [0] * COUNTERS if counters is None else counters
        self._lock = Lock()

    def begin(self) -> None:
        """The worker has taken a batch."""
        self.beat()
        self._counters[_TAKEN] = 1

    def beat(self) -> None:
        self._counters[_STEPS] += 1

    def report(self, read_bytes: int, records: int) -> None:
        """Reports how far the worker has come in a large file."""
        self._counters[_BYTES] = read_bytes
        self._counters[_RECORDS] = records

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Marks that one thread of this process waits for the database."""
        self._count_waiting(1)
        try:
            yield
        finally:
            self._count_waiting(-1)

    def _count_waiting(self, more: int) -> None:
        with self._lock:
            self.beat()
            self._counters[_WAITING] += more


class StallDetector:
    """The daemon's side: for how long the worker that has a batch has stood still."""

    def __init__(self, counters: SharedCounters) -> None:
        """Begins while the worker has no batch in flight."""
        self._counters = counters
        self._counters[:] = [0] * COUNTERS
        self._seen: list[int] = []
        self._still = 0.0
        self._looked = time.monotonic()

    @property
    def is_taken(self) -> bool:
        return bool(self._counters[_TAKEN])

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes and records of a large file that the worker has read."""
        return self._counters[_BYTES], self._counters[_RECORDS]

    def complaint(self) -> Exception | None:
        """Returns the error to fail the batch with if the worker is stalled.

        Restarts the timer, so a kill that had no effect is reported again.
        """
        self._look()
        is_waiting = self._counters[_WAITING] > 0
        limit = DATABASE_SECONDS if is_waiting else HANG_SECONDS
        if self._still < limit:
            return None
        self._still = 0.0
        if is_waiting:
            return TransactionFailed(f"the database did not answer this batch for {limit:g} s")
        if not self.is_taken:
            return BatchLost(f"no worker took the batch for {limit:g} s")
        return WorkerHung(f"the worker process made no progress for {limit:g} s")

    def _look(self) -> None:
        seen, now = list(self._counters), time.monotonic()
        # At most a moment each time: if the daemon was stopped, its workers may have been stopped too.
        self._still = 0.0 if seen != self._seen else self._still + min(now - self._looked, 2 * CHECK_SECONDS)
        self._seen, self._looked = seen, now
