"""A database that does not answer: since when, and when it is asked again."""

import random
import time


class BackOff:
    """Pauses between tries: capped, and jittered so that daemons do not come back all at once."""

    _FIRST, _LONGEST = 0.25, 5.0

    def __init__(self) -> None:
        self._pause = self._FIRST

    def next(self) -> float:
        pause, self._pause = self._pause, min(self._pause * 2, self._LONGEST)
        return pause * random.uniform(0.75, 1.0)


class Outage:
    """From the first sign of it until the database has answered."""

    def __init__(self) -> None:
        self.next_try = 0.0
        self._reason = ""
        self._since = time.monotonic()
        self._back_off = BackOff()

    def is_new(self, reason: str) -> bool:
        """Whether that is not the reason that was given last: the first often tells least."""
        last, self._reason = self._reason, reason
        return reason != last

    def postpone(self) -> None:
        self.next_try = time.monotonic() + self._back_off.next()

    def seconds(self) -> float:
        return time.monotonic() - self._since
