"""What is in the watch folder: its observer kept alive, its names listed, its troubles told once."""

import errno
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import watcher.scan
from monitor.log import Log
from processing.printable import printable
from sources.claims import recover_claims
from watcher.kind import ObserverKind
from watcher.observer import FolderObserver


class FileDiscovery:
    """Wakes with the name of a new file, or with None when names were lost; tells all names when asked."""

    def __init__(self, folder: str, kind: ObserverKind, wake: Callable[[str | None], None], log: Log) -> None:
        self._folder = folder
        self._observer = FolderObserver(folder, kind, wake, alarm=lambda: wake(None))
        self._log = log
        self._troubles: dict[str, str] = {}
        self._passed_over: Collection[str] = ()

    def observe(self) -> None:
        """Arms the observer if it is not, or no longer; before a scan, so that nothing is missed."""
        with self._log_once("not observing, only scanning", "observing again"):
            if not self._observer.is_sound():
                was_armed = self._observer.is_armed
                self._observer.stop()
                self._observer.start()
                if was_armed:
                    self._log.warning("observer restarted", reason="it had died, or lost the folder")

    def scan(self) -> list[str] | None:
        """The names of the files to load; None if the folder can't be read now."""
        with self._log_once("cannot read the watch folder", "reading the watch folder again"):
            passed_over: dict[str, OSError] = {}
            for path in recover_claims(self._folder, passed_over.__setitem__):
                name = printable(os.path.basename(path))
                self._log.warning("recovered", file=name, reason="a worker died with it in hand")
            self._tell_passed_over(passed_over)
            return watcher.scan.waiting(self._folder)
        return None

    def stop(self) -> None:
        self._observer.stop()

    def _tell_passed_over(self, found: dict[str, OSError]) -> None:
        """Each when it is first found, not at every scan."""
        for path, error in found.items():
            if path not in self._passed_over:
                reason = os.strerror(error.errno or errno.EIO)
                self._log.warning("passed over", path=printable(path), reason=reason)
        self._passed_over = found.keys()

    @contextmanager
    def _log_once(self, trouble: str, relief: str) -> Iterator[None]:
        """An OSError is told when it begins and when it is over, not at every scan."""
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            if self._troubles.get(trouble) != reason:
                self._log.error(trouble, folder=printable(self._folder), reason=reason)
            self._troubles[trouble] = reason
        else:
            if self._troubles.pop(trouble, None):
                self._log.info(relief, folder=printable(self._folder))
