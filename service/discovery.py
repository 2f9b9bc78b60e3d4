"""Finds the files of the watch folder: keeps its observer alive, lists it, publishes its troubles."""

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import watcher.scan
from service.events import (
    ClaimPassedOver,
    EntriesIgnored,
    Event,
    FileRecovered,
    FolderReadable,
    FolderUnreadable,
    ObserverFailed,
    ObserverRestarted,
    ObserverWorks,
    Publish,
)
from service.presence import Presence
from sources.claims import recover_claims
from watcher.kind import ObserverKind
from watcher.observer import FolderObserver
from watcher.scan import UNFINISHED


class Discovery(Protocol):
    """Finds the files to load, in a folder or in a bucket."""

    def observe(self) -> None:
        """Lets new files be noticed from now on."""

    def scan(self) -> list[str] | None:
        """Returns the names of all files; None if it can't, or if they come later, by messages."""

    def size_of(self, name: str) -> int | None:
        """Returns the size of a file, or None if there is no such file."""

    def is_ours(self, name: str) -> bool:
        """Returns whether this daemon is to load the file, no other."""

    def put_back(self) -> None:
        """Puts back what workers left half-way."""

    def left(self, waiting: int) -> int:
        """Returns how many files of the first scan are not done, if so many are known to wait."""

    def stop(self) -> None:
        """Finds no more."""


class FileDiscovery:
    """The names of files to load: each new one by a call, all of them on request."""

    def __init__(
        self,
        folder: str,
        kind: ObserverKind,
        publish: Publish,
        presence: Presence,
        on_file: Callable[[str], None],
        on_names_lost: Callable[[], None],
        own_names: Collection[str] = (),
    ) -> None:
        """Starts nothing. The observer calls on_file with the name of a new file, or on_names_lost.

        own_names are those of our own folders in the watch folder.
        """
        self._folder = folder
        self._observer = FolderObserver(folder, kind, on_file, alarm=on_names_lost)
        self._publish = publish
        self._presence = presence
        self._troubles: dict[type[Event], str] = {}
        self._passed_over: Collection[str] = ()
        self._own_names = frozenset(own_names)
        self._ignored: set[str] = set()
        self._listed: list[str] | None = None

    def observe(self) -> None:
        """Starts the observer if it does not work; to be called before a scan, so that nothing is missed."""
        with self._publish_once(ObserverFailed, ObserverWorks):
            if not self._observer.is_sound():
                was_armed = self._observer.is_armed
                self._observer.stop()
                self._observer.start()
                if was_armed:
                    self._publish(ObserverRestarted())

    def scan(self) -> list[str] | None:
        """Returns the names of the files to load; None if the folder can't be read now."""
        self._presence.hold()
        with self._publish_once(FolderUnreadable, FolderReadable):
            passed_over: dict[str, OSError] = {}
            for path in recover_claims(self._folder, passed_over.__setitem__):
                self._publish(FileRecovered(os.path.basename(path)))
            # Each one when it is first found, not at every scan.
            for path, error in passed_over.items():
                if path not in self._passed_over:
                    self._publish(ClaimPassedOver(path, os.strerror(error.errno or errno.EIO)))
            self._passed_over = passed_over.keys()
            found = watcher.scan.listing(self._folder)
            self._report_ignored({name for name in found.ignored if not name.lower().endswith(UNFINISHED)})
            self._listed = found.wanted
            return found.wanted
        self._listed = None
        return None

    def size_of(self, name: str) -> int | None:
        """Returns None for a missing file or a directory.

        The polling observer reports a directory as a moved file when it reuses the inode of a file.
        """
        try:
            status = os.lstat(os.path.join(self._folder, name))
        except FileNotFoundError:
            return None
        except OSError:
            return 0  # opening it will give the reason
        return None if stat.S_ISDIR(status.st_mode) else status.st_size

    def is_ours(self, name: str) -> bool:
        """Returns True: daemons find out by the lock of each file."""
        return True

    def put_back(self) -> None:
        """Puts files back that workers had claimed."""
        recover_claims(self._folder)

    def left(self, waiting: int) -> int:
        """Returns how many of the files last found are there, whatever put them back.

        At least one if the folder can't be read.
        """
        with suppress(OSError):
            if self._listed is not None:
                return len(set(self._listed) & set(watcher.scan.waiting(self._folder)))
        return max(1, waiting)

    def _report_ignored(self, ignored: set[str]) -> None:
        """Publishes what is ignored once, and again only if it was away meanwhile."""
        ignored -= self._own_names
        if fresh := ignored - self._ignored:
            self._publish(EntriesIgnored(sorted(fresh)))
        self._ignored = ignored

    def stop(self) -> None:
        """Stops the observer, and no longer watches the folder."""
        self._observer.stop()
        self._presence.release()

    @contextmanager
    def _publish_once(
        self, trouble: type[ObserverFailed | FolderUnreadable], relief: type[ObserverWorks | FolderReadable]
    ) -> Iterator[None]:
        """Publishes an OSError when it begins and when it is over, not at every scan."""
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            if self._troubles.get(trouble) != reason:
                self._publish(trouble(self._folder, reason))
            self._troubles[trouble] = reason
        else:
            if self._troubles.pop(trouble, None):
                self._publish(relief(self._folder))
