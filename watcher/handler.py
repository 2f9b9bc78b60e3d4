"""An event becomes a wake-up with a name; nothing more may happen in watchdog's thread."""

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

#: The events that can make a file loadable: written and closed, renamed, moved in or hard-linked.
#: Only Linux has Closed; elsewhere a created file is looked at again and again until it is whole.
EVENTS: list[type[FileSystemEvent]] = [FileCreatedEvent, FileClosedEvent, FileMovedEvent]


class Handler(FileSystemEventHandler):
    """Passes on the name that a file has now."""

    def __init__(self, wake: Callable[[str], None]) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        name = os.path.basename(os.fsdecode(event.dest_path or event.src_path))
        if is_wanted(name):
            self._wake(name)
