"""Watches a folder by inotify for files that arrive, and not for files that leave.

When a file leaves, watchdog waits half a second to see whether the file arrives elsewhere, and holds back
all later events meanwhile. Each file that this system removes would delay the events of new files.
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
    """An observer of arrivals only; it reports a file that was moved in as a created one."""

    def __init__(self) -> None:
        try:
            super().__init__()
        except RuntimeError:  # no thread can be started
            self._inotify_fd._close_resources()  # close() leaves that to the thread, which there is not
            raise
        self._emitter_class = _ArrivalsEmitter
