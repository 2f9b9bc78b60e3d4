"""The requests and COMMITs of a program that is to be killed before or after one of them."""

import os
from collections import Counter
from contextlib import ExitStack, suppress
from signal import SIGKILL
from threading import Lock

from tests.chaos.kills import KillRig, Point
from tests.chaos.proxy import TO_SERVER, Proxy

#: When a kill strikes: the other end has not seen the request, or has answered it.
BEFORE, AFTER = "before", "after"

_COMMIT = "COMMIT"

_PLAIN = "sslmode=disable&gssencmode=disable"


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


class MomentRig(KillRig):
    """A program whose requests and COMMITs are its points; it talks by proxies that ask the moments."""

    def prepare(self) -> None:
        self.moments = Moments()
        self._stack = ExitStack()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._stack.close()

    def trace(self) -> list[Point]:
        """Returns each moment of a run without faults."""
        self.reset()
        self._without_faults(self._held())
        return list(self.moments.seen)

    def kill_at(self, point: Point) -> bool:
        held = self._held()
        self.moments.arm(held.pid, point)
        ended = held.run()
        is_struck = self.moments.is_struck
        self.moments.arm(0, None)  # what looks at the result may pass a proxy, too
        assert not ended.hung and ended.code in (0, -SIGKILL), self.nursery.log.read_text()
        return is_struck

    def _proxied_database(self) -> str:
        """Puts a proxy before the database; returns the URL of that."""
        port = int(self.url.rpartition(":")[2].partition("/")[0])
        database = self._stack.enter_context(Proxy(port).running())
        database.may_pass = self.moments.may_pass
        return f"{self.url.replace(str(port), str(database.port))}?{_PLAIN}"
