"""Tells of new files as soon as the system does, by inotify and its like or by polling."""

import os
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


class FolderObserver:
    """An observer of one folder that can be asked whether it still observes it."""

    def __init__(self, folder: str, kind: ObserverKind, wake: Callable[[str], None]) -> None:
        self._folder = folder
        self._kind = kind
        self._handler = Handler(wake)
        self._observer: BaseObserver | None = None
        self._root: tuple[int, int] | None = None

    def start(self) -> None:
        """Arms the observer; raises OSError if the folder is missing or the system's limits are reached."""
        if self._kind is ObserverKind.OFF:
            return
        self._root = _identity(self._folder)
        observer = PollingObserver(timeout=1) if self._kind is ObserverKind.POLLING else Observer()
        observer.schedule(self._handler, self._folder, recursive=False, event_filter=EVENTS)
        observer.start()
        self._observer = observer

    def is_sound(self) -> bool:
        """Whether all its threads live and the folder is still the one it was armed on."""
        if self._kind is ObserverKind.OFF:
            return True
        observer = self._observer
        if observer is None or not observer.is_alive() or not observer.emitters:
            return False
        return all(emitter.is_alive() for emitter in observer.emitters) and self._is_same_folder()

    def stop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join(timeout=2)

    def _is_same_folder(self) -> bool:
        try:
            return _identity(self._folder) == self._root
        except OSError:
            return False


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
