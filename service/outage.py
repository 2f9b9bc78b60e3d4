"""What the daemon can't go on without: since when it is away, and when it is tried again."""

import math
import random
import time

from monitor.log import Log

#: How long --once waits for what it can't go on without: a restart of the database takes less.
ONCE_SECONDS = 30.0


class TimedOut(Exception):
    """It has been away for longer than --once waits; the files are as they were."""


class BackOff:
    """Pauses between tries: capped, and jittered so that daemons do not come back all at once."""

    _FIRST, _LONGEST = 0.25, 5.0

    def __init__(self) -> None:
        self._pause = self._FIRST

    def next(self) -> float:
        pause, self._pause = self._pause, min(self._pause * 2, self._LONGEST)
        return pause * random.uniform(0.75, 1.0)


class Outage:
    """From the first sign of it, which is told, until what is away has answered."""

    def __init__(self, what: str, reason: Exception, log: Log) -> None:
        self.what = what
        self.next_try = 0.0
        self.probe: object = None  # what is under way to see whether it is over
        self._told = {str(reason)}
        self._since = time.monotonic()
        self._back_off = BackOff()
        self._log = log
        log.warning(f"waiting for {what}", reason=str(reason))

    def postpone(self, reason: Exception, *, once: bool) -> None:
        """The next try; raises GaveUp if there is to be none."""
        self._tell(str(reason))
        now = time.monotonic()
        if now - self._since >= (ONCE_SECONDS if once else math.inf):
            raise TimedOut(f"gave up waiting for {self.what} after {now - self._since:.0f} s: {reason}")
        self.next_try = now + self._back_off.next()

    def _tell(self, reason: str) -> None:
        """Each reason once: the first often tells least."""
        if reason not in self._told:
            self._told.add(reason)
            self._log.warning(f"{self.what} is still away", reason=reason)

    def end(self) -> None:
        self._log.info(f"{self.what} is back", seconds=round(time.monotonic() - self._since, 1))
