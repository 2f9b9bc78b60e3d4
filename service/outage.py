"""A circuit breaker for what the daemon depends on: when the outage began and when to probe again."""

import random
import time

from service.events import OutageBegan, OutageEnded, OutageReasonChanged, Publish, Resource

#: The longest outage that --once waits for; a restart of the database takes less.
ONCE_SECONDS = 30.0


class TimedOut(Exception):
    """The outage took longer than --once waits; the files are as they were."""


class BackOff:
    """Pauses between tries, growing up to a limit, with jitter so that daemons do not return all at once."""

    _FIRST, _LONGEST = 0.25, 5.0

    def __init__(self) -> None:
        self._pause = self._FIRST

    def next(self) -> float:
        """Returns the next pause, in seconds."""
        pause, self._pause = self._pause, min(self._pause * 2, self._LONGEST)
        return pause * random.uniform(0.75, 1.0)


class Outage:
    """The time from the first failure of a resource until a probe of it succeeds."""

    def __init__(self, resource: Resource, publish: Publish) -> None:
        self.resource = resource
        self.next_try = 0.0
        self.probe: object = None  # the batch in flight whose success ends the outage
        self._publish = publish
        self._reasons: set[str] = set()
        self._since = time.monotonic()
        self._back_off = BackOff()

    def postpone(self, error: Exception, *, once: bool) -> None:
        """Sets the time of the next try; raises TimedOut if --once has waited for long enough."""
        reason = str(error)
        if reason not in self._reasons:
            # Each reason once: the first error is often the least specific.
            event = OutageReasonChanged if self._reasons else OutageBegan
            self._publish(event(self.resource, reason))
            self._reasons.add(reason)
        now = time.monotonic()
        if once and now - self._since >= ONCE_SECONDS:
            waited = f"{self.resource.value} after {now - self._since:.0f} s"
            raise TimedOut(f"gave up waiting for {waited}: {reason}")
        self.next_try = now + self._back_off.next()

    def end(self) -> None:
        """Publishes the end of the outage."""
        self._publish(OutageEnded(self.resource, round(time.monotonic() - self._since, 1)))
