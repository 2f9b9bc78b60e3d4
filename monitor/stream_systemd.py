"""Reports to systemd that a consumer of topics is ready, that it is alive, and what it waits for."""

from monitor.systemd import ServiceManager
from service import stream_events
from service.events import Event


class StreamServiceManager:
    """The subscriber of a consumer: what it shares with the daemon, it leaves to the daemon's."""

    def __init__(self, address: str) -> None:
        """Opens nothing."""
        self._manager = ServiceManager(address)

    def note(self, event: Event) -> None:
        """Takes an event, of any thread; raises nothing, and waits for nobody."""
        match event:
            case stream_events.ConsumerStarted():
                self._manager.begin(f"consuming {', '.join(event.topics)} in the group {event.group}")
            case stream_events.ConsumerStopped():
                self._manager.end()
            case _:
                self._manager.note(event)
