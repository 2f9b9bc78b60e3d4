"""Watches a folder by inotify for what arrives in it, not for what leaves.

watchdog holds each file that leaves back for half a second, to see whether it arrives elsewhere, and with it
all events behind it: what this system takes out of the folder would delay the news of what comes into it.
"""

from watchdog.observers.inotify import InotifyEmitter, InotifyObserver
from watchdog.observers.inotify_c import InotifyConstants, Mask

_ARRIVALS = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_DELETE_SELF
)


class _ArrivalsEmitter(InotifyEmitter):
    def get_event_mask_from_filter(self) -> Mask:
        return _ARRIVALS


class ArrivalsObserver(InotifyObserver):
    """An observer whose emitters tell of arrivals; a file that was moved in is a created one."""

    def __init__(self) -> None:
        super().__init__()
        self._emitter_class = _ArrivalsEmitter
