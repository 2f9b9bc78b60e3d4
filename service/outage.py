"""A circuit breaker for what the daemon depends on: when the outage began and when to probe again."""

import random
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from service.events import OutageBegan, OutageEnded, OutageReasonChanged, Publish, Resource
from service.signals import StopSignal

T = TypeVar("T")

#: The longest outage that --once waits for; a restart of the database takes less.
ONCE_SECONDS = 30.0

_MINUTE = 60.0
_LATER_PAUSE = 5.0


class TimedOut(Exception):
    """The outage took longer than --once waits; the files are as they were."""


def pause_after(tries: int, seconds: float) -> float:
    """Returns the pause after so many failed tries in so many seconds of an outage, in seconds.

    A second in the first minute, when somebody restarts the server and looks at the log; at first less, since
    a connection that was ended may be made again at once. With jitter: daemons do not return together.
    """
    pause = min(0.25 * 2 ** min(tries - 1, 2), 1.0) if seconds < _MINUTE else _LATER_PAUSE
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
        self._tries = 0

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
        self._tries += 1
        self.next_try = now + pause_after(self._tries, now - self._since)

    def end(self) -> None:
        """Publishes the end of the outage."""
        self._publish(OutageEnded(self.resource, round(time.monotonic() - self._since, 1)))


def wait_for(
    attempt: Callable[[], T],
    resources: Mapping[type[Exception], Resource],
    publish: Publish,
    stop: StopSignal,
    *,
    once: bool,
) -> T | None:
    """Repeats an attempt until it raises none of these errors, each of which names what is away.

    Returns its result, or None if asked to stop before; raises TimedOut if --once has waited for long enough.
    """
    outages: dict[Resource, Outage] = {}
    while not stop.event.is_set():
        try:
            result = attempt()
        except tuple(resources) as error:
            if stop.event.is_set():
                break
            resource = next(named for kind, named in resources.items() if isinstance(error, kind))
            outage = outages.setdefault(resource, Outage(resource, publish))
            outage.postpone(error, once=once)
            stop.event.wait(outage.next_try - time.monotonic())
        else:
            for outage in outages.values():
                outage.end()
            return result
    return None
