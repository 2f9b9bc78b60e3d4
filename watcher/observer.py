"""Tells of new files as soon as the system does, by inotify and its like or by polling."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from enum import StrEnum

from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserver

from watcher.handler import EVENTS, Handler


class ObserverKind(StrEnum):
    """How new files are noticed between two scans."""

    NATIVE = "native"
    POLLING = "polling"
    OFF = "off"


class _Alarm(logging.Handler):
    """watchdog tells of events that the system dropped (IN_Q_OVERFLOW) only by a warning in its log."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._ring = ring

    def emit(self, record: logging.LogRecord) -> None:
        self._ring()


class FolderObserver:
    """An observer of one folder that can be asked whether it still observes it.

    Wakes with the name of a file; sounds the alarm when events may be lost.
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
        """Arms the observer; raises OSError if the folder is missing or the system's limits are reached."""
        if self._kind is ObserverKind.OFF:
            return
        self._root = _identity(self._folder)
        # watchdog names its observer and emitters, but not the thread that reads from inotify.
        others = set(threading.enumerate())
        observer = PollingObserver(timeout=1) if self._kind is ObserverKind.POLLING else _native()
        try:
            observer.schedule(self._handler, self._folder, recursive=False, event_filter=EVENTS)
            observer.start()
        except OSError:
            observer.stop()
            raise
        self._threads = set(threading.enumerate()) - others
        self._observer = observer
        logging.getLogger("watchdog").addHandler(self._alarm)

    def is_sound(self) -> bool:
        """Whether all its threads live and the folder is still the one it was armed on."""
        if self._kind is ObserverKind.OFF:
            return True
        is_alive = self.is_armed and all(thread.is_alive() for thread in self._threads)
        return is_alive and self._is_same_folder()

    @property
    def is_armed(self) -> bool:
        """Whether it was started and not stopped since."""
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
        from watcher.inotify import ArrivalsObserver  # only there it can be imported

        return ArrivalsObserver()
    return Observer()


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
