"""Turns an event into a wake-up with the name of a file; nothing more may happen in watchdog's thread."""

import os
from collections.abc import Callable

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)

from watcher.scan import is_wanted

#: The events after which a file may be complete: written and closed, renamed, moved in or hard-linked.
#: Only Linux has Closed; elsewhere a new file is retried until it is complete.
EVENTS: list[type[FileSystemEvent]] = [FileCreatedEvent, FileClosedEvent, FileMovedEvent]


class Handler(FileSystemEventHandler):
    """Passes on the current name of the file that an event is about."""

    def __init__(self, wake: Callable[[str], None]) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        name = os.path.basename(os.fsdecode(event.dest_path or event.src_path))
        if is_wanted(name):
            self._wake(name)
