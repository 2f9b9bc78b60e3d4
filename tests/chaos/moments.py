"""The requests and COMMITs of a program that is to be killed before or after one of them."""

import os
from collections import Counter
from contextlib import suppress
from signal import SIGKILL
from threading import Lock

from tests.chaos.kills import Point
from tests.chaos.proxy import TO_SERVER

#: When a kill strikes: the other end has not seen the request, or has answered it.
BEFORE, AFTER = "before", "after"

_COMMIT = "COMMIT"


class Moments:
    """The requests and COMMITs of a run: each is noted before and after, and at one of them it is killed."""

    def __init__(self) -> None:
        self.seen: list[Point] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = Lock()
        self._point: Point | None = None
        self._pid = 0
        self.is_struck = False

    def arm(self, pid: int, point: Point | None) -> None:
        """Starts anew: a process that is to be killed at the point."""
        self.seen, self._counts = [], Counter()
        self._pid, self._point, self.is_struck = pid, point, False

    def reached(self, moment: str, call: str) -> bool:
        """Notes a moment; returns whether the process is dead."""
        with self._lock:
            self._counts[moment, call] += 1
            point = Point(moment, call, self._counts[moment, call])
            self.seen.append(point)
            if point == self._point:
                self.is_struck = True
                with suppress(ProcessLookupError):
                    os.kill(self._pid, SIGKILL)
            return self.is_struck

    def may_pass(self, direction: str, message: bytes) -> bool:
        """Notes the COMMITs among PostgreSQL's messages."""
        if direction == TO_SERVER and message.startswith(b"Q") and message[5:11] == b"COMMIT":
            return not self.reached(BEFORE, _COMMIT)
        if direction != TO_SERVER and message.startswith(b"C") and message[5:11] == b"COMMIT":
            return not self.reached(AFTER, _COMMIT)
        return True
