"""Answers whether the daemon is alive, and whether it can load."""

import time
from collections.abc import Callable
from threading import Lock

from processing.errors import DatabaseUnavailable, Misconfigured
from service import events
from service.events import Event, Resource

#: The main loop turns every 30 s at the latest; what it does then, such as a scan, may take some time.
_TURN_SECONDS = 90.0

#: The embedded database may take this long to start again, and the main loop waits for it.
_SLOW_SECONDS = 660.0

#: An answer of where the rows go is good for so long: many who ask cost no more than one.
_ANSWER_SECONDS = 5.0


class Health:
    """The state of the daemon, as events tell it, and of what it needs."""

    def __init__(
        self,
        folder_complaint: Callable[[], str],
        ask: Callable[[], None],
        destination: Resource = Resource.DATABASE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Asks the destination, where the rows go; ask() takes a few seconds at most.

        It raises DatabaseUnavailable or Misconfigured.
        """
        self._folder_complaint = folder_complaint
        self._ask_destination = ask
        self._destination = destination
        self._clock = clock
        self._turned_at: float | None = None
        self._is_database_slow = False
        self._outage = ""
        self._asking = Lock()
        self._asked_at: float | None = None
        self._complaint = ""

    def note(self, event: Event) -> None:
        """Takes an event, of any thread."""
        match event:
            case events.LoopTurned():
                self._turned_at, self._is_database_slow = self._clock(), False
            case events.DatabaseSlow():
                self._is_database_slow = True
            case events.OutageBegan(resource, reason) | events.OutageReasonChanged(resource, reason):
                self._outage = f"an outage of {resource.value}: {reason}"
            case events.OutageEnded() | events.Started():
                self._outage = ""

    def why_not_alive(self) -> str:
        """Returns a sentence if the main loop does not turn, else nothing; its first turn is waited for."""
        if self._turned_at is None:
            return ""
        seconds = self._clock() - self._turned_at
        allowed = _TURN_SECONDS + (_SLOW_SECONDS if self._is_database_slow else 0.0)
        return f"the main loop has not turned for {seconds:.0f} s" if seconds > allowed else ""

    def why_not_ready(self) -> str:
        """Returns a sentence if nothing can be loaded now, else nothing; the destination is asked last."""
        if self._outage:
            return self._outage
        if self._turned_at is None:
            return "the daemon is starting"
        return self.why_not_alive() or self._folder_complaint() or self._ask()

    def _ask(self) -> str:
        with self._asking:
            if self._asked_at is None or self._clock() - self._asked_at >= _ANSWER_SECONDS:
                try:
                    self._ask_destination()
                    self._complaint = ""
                except (DatabaseUnavailable, Misconfigured) as error:
                    self._complaint = f"{self._destination.value} does not answer: {error}"
                self._asked_at = self._clock()
            return self._complaint
