"""A folder whose files are only looked at: nobody is kept from them, and none is disposed of."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sources.local_file import LocalFile, open_file


class PeekSource:
    """Opens the files of one folder without keeping the lock; leaves each as it is and where it is."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @contextmanager
    def open(self, name: str) -> Iterator[LocalFile]:
        """Opens a file as a daemon would, with the same errors, but gives the lock back at once."""
        with open_file(self._folder, name) as file:
            with suppress(OSError):  # not every network file system can lock
                fcntl.flock(file.fd, fcntl.LOCK_UN)
            yield file

    def complete(self, file: LocalFile) -> None: ...

    def quarantine(self, file: LocalFile, reason: str) -> str:
        return file.path

    def quarantine_unopened(self, name: str, reason: str) -> str:
        return os.path.join(self._folder, name)

    def tidy(self) -> None: ...

    def close(self) -> None: ...
