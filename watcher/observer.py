"""Reports new files at once, by inotify or its equivalent on other systems, or by polling."""

import errno
import logging
import os
import sys
import threading
from collections.abc import Callable

from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserver
from watchdog.utils import BaseThread

from watcher.handler import EVENTS, Handler
from watcher.kind import ObserverKind


class _Alarm(logging.Handler):
    """A log handler that calls back when watchdog warns.

    watchdog reports that the system dropped events (IN_Q_OVERFLOW) only by a warning in its log.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._ring = ring

    def emit(self, record: logging.LogRecord) -> None:
        self._ring()


class FolderObserver:
    """An observer of one folder that knows whether it still works.

    Calls `wake` with the name of a file, and `alarm` when events may have been lost.
    """

    def __init__(
        self, folder: str, kind: ObserverKind, wake: Callable[[str], None], alarm: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._kind = kind
        self._handler = Handler(wake)
        self._alarm = _Alarm(alarm)
        self._observer: BaseObserver | None = None
        self._threads: set[threading.Thread] = set()
        self._root: tuple[int, int] | None = None

    def start(self) -> None:
        """Starts to observe; raises OSError if the folder is missing or a limit of the system is reached."""
        if self._kind is ObserverKind.OFF:
            return
        self._root = _identity(self._folder)
        # watchdog gives access to its observer and emitters, but not to the thread that reads from inotify.
        # So all of its threads that start below are remembered; others, of ours, may start at the same time.
        others = set(threading.enumerate())
        observer: BaseObserver | None = None
        try:
            observer = PollingObserver(timeout=1) if self._kind is ObserverKind.POLLING else _native()
            observer.schedule(self._handler, self._folder, recursive=False, event_filter=EVENTS)
            observer.start()
        except (OSError, RuntimeError) as error:
            if observer is not None:
                observer.stop()
            if isinstance(error, OSError):
                raise
            raise OSError(errno.EAGAIN, str(error)) from None  # no thread can be started
        started = set(threading.enumerate()) - others
        self._threads = {thread for thread in started if isinstance(thread, BaseThread)}
        self._observer = observer
        logging.getLogger("watchdog").addHandler(self._alarm)

    def is_sound(self) -> bool:
        """Returns whether all threads are alive and the folder is still the same one as at the start."""
        if self._kind is ObserverKind.OFF:
            return True
        is_alive = self.is_armed and all(thread.is_alive() for thread in self._threads)
        return is_alive and self._is_same_folder()

    @property
    def is_armed(self) -> bool:
        """Returns true from start() to stop()."""
        return self._observer is not None

    def stop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            logging.getLogger("watchdog").removeHandler(self._alarm)
            observer.stop()
            observer.join(timeout=2)

    def _is_same_folder(self) -> bool:
        try:
            return _identity(self._folder) == self._root
        except OSError:
            return False


def _native() -> BaseObserver:
    if sys.platform == "linux":
        from watcher.inotify import ArrivalsObserver  # importable on Linux only

        return ArrivalsObserver()
    return Observer()


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
