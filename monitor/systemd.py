"""Reports to systemd that the daemon is ready, that it is alive, and what it waits for."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress

from processing.printable import printable
from service import events
from service.events import Event

#: How often systemd hears that the main loop turns, at most.
_BEAT_SECONDS = 10.0


class ServiceManager:
    """The subscriber that writes to the socket NOTIFY_SOCKET of a service manager."""

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Opens nothing. An address with "@" is an abstract one, without a file."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._clock = clock
        self._next_beat = 0.0
        self._doing = ""

    def note(self, event: Event) -> None:
        """Takes an event, of any thread; raises nothing, and waits for nobody."""
        match event:
            case events.LoopTurned():
                self._beat()
            case events.Started():
                self.begin(f"watching {event.folder}")
            case events.DatabaseSlow(reason):
                self._send(f"STATUS=the embedded database is starting: {reason}")
            case events.OutageBegan(resource, reason) | events.OutageReasonChanged(resource, reason):
                self._send(f"STATUS=waiting for {resource.value}: {reason}")
            case events.OutageEnded():
                self._send(f"STATUS={self._doing}")
            case events.Stopped():
                self.end()

    def begin(self, doing: str) -> None:
        """Reports that the program is ready, and what it does from now on."""
        self._doing = doing
        self._send("READY=1", f"STATUS={doing}")

    def end(self) -> None:
        """Reports that the program ends."""
        self._send("STOPPING=1", "STATUS=stopped")

    def _beat(self) -> None:
        if (now := self._clock()) >= self._next_beat:
            self._next_beat = now + _BEAT_SECONDS
            self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        text = "\n".join(printable(assignment) for assignment in assignments)
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), self._address)
