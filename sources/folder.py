"""A local folder as a source: its files are opened in place, claimed, and then removed or quarantined."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct
from msgspec.structs import replace

from processing.errors import NotReady
from sources.claims import Claims, move
from sources.disposal import Disposal
from sources.local_file import Beat, FileIdentity, LocalFile, no_beat, open_file
from sources.policy import QUIET_SECONDS, OnLoaded


class _Kept(Struct, frozen=True):
    """A claimed file whose rows are committed, until nobody can be writing it any more."""

    path: str
    name: str
    identity: FileIdentity
    due: float


class FolderSource:
    """Opens the files of one folder, and disposes of exactly those that were read.

    A file is first claimed, that is, renamed into a private folder: nobody can then replace it under its
    name, and what was claimed can be compared with what was read.

    Where nobody can know whether a program still has the file open, complete() returns at once and leaves it
    claimed for the quiet time; tidy() removes it then. What is written to it meanwhile makes it new work.
    """

    def __init__(
        self,
        folder: str,
        failed: str,
        archive: str,
        on_loaded: OnLoaded,
        quiet_seconds: float = QUIET_SECONDS,
        beat: Beat = no_beat,
    ) -> None:
        self._folder = folder
        self._quiet_seconds = quiet_seconds
        self._beat = beat
        self._claims = Claims(folder)
        self._disposal = Disposal(folder, failed, archive, on_loaded)
        self._kept: dict[str, _Kept] = {}  # by name, the first due first

    def open(self, name: str) -> LocalFile:
        """Opens and locks a file; each step in reading it beats."""
        return open_file(self._folder, name, self._beat)

    def complete(self, file: LocalFile) -> None:
        """Deletes or archives a file whose rows are committed, or keeps it claimed for tidy()."""
        with self._claim(file) as claimed:
            if not file.hides_writers:
                self._disposal.remove(claimed, file.name)
                return
            identity = _look_anew(claimed)
            if not identity.same_content_as(file.identity):
                raise NotReady("it changed while it was claimed")
            self._claims.keep(claimed, file.fd)
            due = time.monotonic() + self._quiet_seconds
            self._kept[file.name] = _Kept(claimed, file.name, identity, due)

    def quarantine(self, file: LocalFile, reason: str) -> str:
        """Moves a bad file into the failed folder, a note of the reason beside it; returns its path."""
        with self._claim(file) as claimed:
            os.fsync(file.fd)  # its bytes before its new name
            return self._disposal.quarantine(claimed, file.name, reason)

    def quarantine_unopened(self, name: str, reason: str) -> str:
        """Quarantines something that is no regular file, without ever opening it."""
        self._refuse_kept(name)
        with self._claims.take(name) as taken:
            if stat.S_ISREG(os.lstat(taken).st_mode):
                raise NotReady("another file took its name")
            if self._claims.is_beside(taken):  # nothing of it is open, hence nothing locked
                raise NotReady("the disk is full")
            return self._disposal.quarantine(taken, name, reason)

    def tidy(self) -> float | None:
        """Removes kept files that have been quiet, puts back those that have not.

        Returns the seconds until the next is due.
        """
        now = time.monotonic()
        for kept in [kept for kept in self._kept.values() if kept.due <= now]:
            del self._kept[kept.name]
            try:
                if _look_anew(kept.path) == kept.identity:
                    self._disposal.remove(kept.path, kept.name)
                else:
                    move(kept.path, self._folder, kept.name)
            except FileNotFoundError:
                pass  # its folder is away: claims in it are recovered when it returns
            except OSError:
                self._kept[kept.name] = replace(kept, due=now + self._quiet_seconds)
                continue
            self._claims.release(kept.path)
        return next((max(0.0, kept.due - now) for kept in self._kept.values()), None)

    def close(self) -> None:
        """Waits, once, until all kept files have been quiet; leaves no private folder behind."""
        if self._kept:
            last = max(kept.due for kept in self._kept.values())
            time.sleep(max(0.0, last - time.monotonic()))
            self.tidy()
        self._claims.close()

    @contextmanager
    def _claim(self, file: LocalFile) -> Iterator[str]:
        """Claims the file that was read, and no other."""
        file.check_unchanged()
        self._refuse_kept(file.name)
        with self._claims.take(file.name) as claimed:
            # Checked again: until the rename, another file could take its name, and a program could open it.
            found = FileIdentity.of(os.stat(claimed, follow_symlinks=False))
            if not found.same_content_as(file.identity):
                raise NotReady("another file took its name")
            file.check_no_writer()
            yield claimed

    def _refuse_kept(self, name: str) -> None:
        """Raises NotReady if a kept file has the name: in the private folder it would be replaced."""
        if name in self._kept:
            raise NotReady("one of its name is not removed yet")


def _look_anew(path: str) -> FileIdentity:
    """Opens the file to take its identity: a network file system then asks its server again."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return FileIdentity.of(os.fstat(fd))
    finally:
        os.close(fd)
